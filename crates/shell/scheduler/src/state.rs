//! The scheduler's memory: what the watches showed, what is assumed, and who waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use client::{Cached, ObjectKey};
use placement::{NodeSpec, PodInfo, Snapshot, place};

use crate::apply::Bound;
use crate::queue::{Cause, Queue};

pub enum Outcome {
    Bind(Arc<Cached<PodInfo>>, String),
    Refuse(Arc<Cached<PodInfo>>, String),
}

/// A pod as last seen, and the node whose room it takes.
struct Known {
    pod: Arc<Cached<PodInfo>>,
    node: Option<String>,
    /// The node was chosen here and the watch has not shown it yet.
    assumed: bool,
}

pub struct State {
    scheduler: String,
    seed: u64,
    snapshot: Snapshot,
    nodes: HashMap<String, Arc<NodeSpec>>,
    pods: HashMap<ObjectKey, Known>,
    queue: Queue,
}

impl State {
    pub fn new(scheduler: String, seed: u64) -> Self {
        let (snapshot, queue) = (Snapshot::default(), Queue::default());
        Self { scheduler, seed, snapshot, nodes: HashMap::new(), pods: HashMap::new(), queue }
    }

    pub fn observe_node(&mut self, name: &str, node: Option<&Arc<NodeSpec>>, now: Instant) {
        match node {
            // Heartbeats change nothing that matters here.
            Some(node) if self.nodes.get(name) == Some(node) => {}
            Some(node) => {
                self.nodes.insert(name.to_owned(), node.clone());
                self.snapshot.set_node(node.clone());
                self.queue.happened(Cause::NodeChanged, now);
            }
            None => {
                self.nodes.remove(name);
                self.snapshot.remove_node(name);
            }
        }
    }

    pub fn observe_namespace(&mut self, name: &str, labels: Option<&BTreeMap<String, String>>, now: Instant) {
        match labels {
            Some(labels) if self.snapshot.namespace(name) == Some(labels) => {}
            Some(labels) => {
                self.snapshot.set_namespace(name, labels.clone());
                self.queue.happened(Cause::NamespaceChanged, now);
            }
            None => self.snapshot.remove_namespace(name),
        }
    }

    pub fn observe_pod(&mut self, key: &ObjectKey, pod: Option<Arc<Cached<PodInfo>>>, now: Instant) {
        let is_other = |known: &Known| pod.as_ref().is_none_or(|pod| pod.uid != known.pod.uid || pod.finished);
        if self.pods.get(key).is_some_and(is_other) {
            self.forget(key, now);
        }
        let Some(pod) = pod.filter(|pod| !pod.finished) else { return };
        let known = self.pods.remove(key);
        if let Some(node) = &pod.node {
            self.queue.remove(key);
            let before = known.as_ref().and_then(|known| known.node.as_ref());
            let is_stale = known.as_ref().is_some_and(|known| takes_another_room(&known.pod, &pod));
            if before != Some(node) || is_stale {
                if let Some(before) = before {
                    self.snapshot.remove_pod(before, &pod.uid);
                }
                self.snapshot.add_pod(node, Arc::new(pod.view.clone()));
                self.queue.happened(Cause::PodAssigned, now);
            }
            let node = Some(node.clone());
            self.pods.insert(key.clone(), Known { pod, node, assumed: false });
            return;
        }
        if let Some(known) = known.as_ref().filter(|known| known.assumed) {
            let node = known.node.clone();
            self.pods.insert(key.clone(), Known { pod, node, assumed: true });
            return;
        }
        let is_ours = pod.scheduler == self.scheduler && !pod.gated && !pod.deleting;
        if !is_ours {
            self.queue.remove(key);
        } else if known.is_none_or(|known| matters(&known.pod, &pod)) {
            self.queue.add(key, pod.priority, pod.created, now);
        }
        self.pods.insert(key.clone(), Known { pod, node: None, assumed: false });
    }

    fn forget(&mut self, key: &ObjectKey, now: Instant) {
        self.queue.remove(key);
        if let Some(known) = self.pods.remove(key)
            && let Some(node) = known.node
        {
            self.snapshot.remove_pod(&node, &known.pod.uid);
            self.queue.happened(Cause::PodGone, now);
        }
    }

    /// Decides about the most urgent pod.
    pub fn place_next(&mut self, now: Instant) -> Option<Outcome> {
        loop {
            let key = self.queue.pop()?;
            let Some(known) = self.pods.get_mut(&key) else {
                self.queue.remove(&key);
                continue;
            };
            let pod = known.pod.clone();
            // The multiplier of a known generator: consecutive choices do not follow the order of nodes.
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match place(&pod, &self.snapshot, self.seed >> 33) {
                Ok(node) => {
                    known.node = Some(node.clone());
                    known.assumed = true;
                    self.snapshot.add_pod(&node, Arc::new(pod.view.clone()));
                    return Some(Outcome::Bind(pod, node));
                }
                Err(why) => {
                    self.queue.unschedulable(&key, why.plugins, now);
                    return Some(Outcome::Refuse(pod, why.message));
                }
            }
        }
    }

    pub fn bound(&mut self, bound: Bound, now: Instant) {
        let Some(known) = self.pods.get_mut(&bound.key) else { return };
        if known.pod.uid != bound.uid || !known.assumed {
            return;
        }
        if bound.result.is_ok() {
            self.queue.remove(&bound.key);
            self.queue.happened(Cause::PodAssigned, now);
            return;
        }
        known.node = None;
        known.assumed = false;
        self.snapshot.remove_pod(&bound.node, &bound.uid);
        self.queue.happened(Cause::PodGone, now);
        if known.pod.deleting {
            self.queue.remove(&bound.key);
        } else {
            self.queue.failed(&bound.key, now);
        }
    }

    pub fn tick(&mut self, now: Instant) {
        self.queue.tick(now);
    }

    pub fn next_tick(&self) -> Option<Instant> {
        self.queue.next_tick()
    }

    pub fn has_active(&self) -> bool {
        self.queue.has_active()
    }
}

/// Whether a placed pod means something else to others than it did.
fn takes_another_room(old: &PodInfo, new: &PodInfo) -> bool {
    old.labels != new.labels || old.requests != new.requests || old.deleting != new.deleting
}

/// Whether a change of a waiting pod may let it be placed; its own condition may not.
fn matters(old: &PodInfo, new: &PodInfo) -> bool {
    old.labels != new.labels
        || old.gated != new.gated
        || old.requests != new.requests
        || old.tolerations != new.tolerations
        || old.node_selector != new.node_selector
        || old.node_affinity != new.node_affinity
        || old.scheduler != new.scheduler
        || old.priority != new.priority
}

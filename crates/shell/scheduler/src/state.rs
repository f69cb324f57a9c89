//! The scheduler's memory: what the watches showed, what is assumed, and who waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use client::{Cached, ObjectKey};
use k8s_openapi::api::storage::v1::CSINode;
use placement::volumes::{Assumed, ClaimInfo, ClassInfo, VolumeInfo, VolumePlan};
use placement::{Budget, NodeSpec, PodInfo, Snapshot, place, volume_plan};

use crate::apply::{Bound, Refusal, Refused};
use crate::queue::{Cause, Queue};

pub enum Outcome {
    /// The volumes of the plan are bound first.
    Bind(Arc<Cached<PodInfo>>, String, VolumePlan),
    Refuse(Arc<Cached<PodInfo>>, Refusal),
}

/// A pod as last seen, and the node whose room it takes.
struct Known {
    pod: Arc<Cached<PodInfo>>,
    node: Option<String>,
    /// The node was chosen here and the watch has not shown it yet.
    assumed: bool,
}

/// Something about storage that a watch showed; `None`: it is gone.
pub enum StorageNews {
    Claim(ObjectKey, Option<Arc<ClaimInfo>>),
    Volume(String, Option<Arc<VolumeInfo>>),
    Class(String, Option<Arc<ClassInfo>>),
    Limits(String, Option<Arc<CSINode>>),
}

pub struct State {
    scheduler: String,
    seed: u64,
    snapshot: Snapshot,
    nodes: HashMap<String, Arc<NodeSpec>>,
    pods: HashMap<ObjectKey, Known>,
    queue: Queue,
    /// By uid of the pod whose volumes are being bound.
    volumes: HashMap<String, Assumed>,
}

impl State {
    pub fn new(scheduler: String, seed: u64) -> Self {
        let (snapshot, queue) = (Snapshot::default(), Queue::default());
        let (nodes, pods, volumes) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { scheduler, seed, snapshot, nodes, pods, queue, volumes }
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

    pub fn observe_storage(&mut self, news: StorageNews, now: Instant) {
        let volumes = self.snapshot.volumes_mut();
        match news {
            StorageNews::Claim(key, claim) => volumes.set_claim(&key.namespace, &key.name, claim),
            StorageNews::Volume(name, volume) => volumes.set_volume(&name, volume),
            StorageNews::Class(name, class) => volumes.set_class(&name, class),
            StorageNews::Limits(node, limits) => volumes.set_limits(&node, limits.as_deref()),
        }
        self.queue.happened(Cause::StorageChanged, now);
    }

    pub fn observe_budget(&mut self, key: &ObjectKey, budget: Option<&Budget>) {
        match budget {
            Some(budget) => self.snapshot.set_budget(&key.namespace, &key.name, budget.clone()),
            None => self.snapshot.remove_budget(&key.namespace, &key.name),
        }
    }

    pub fn observe_pod(&mut self, key: &ObjectKey, pod: Option<Arc<Cached<PodInfo>>>, now: Instant) {
        let is_other = |known: &Known| pod.as_ref().is_none_or(|pod| pod.uid != known.pod.uid || pod.finished);
        if self.pods.get(key).is_some_and(is_other) {
            self.forget(key, now);
        }
        let Some(pod) = pod.filter(|pod| !pod.finished) else { return };
        let known = self.pods.remove(key);
        self.observe_nomination(known.as_ref().map(|known| &*known.pod), &pod, now);
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

    /// Follows nominations that others wrote. What was decided here is not undone by an older state of the pod.
    fn observe_nomination(&mut self, old: Option<&Cached<PodInfo>>, pod: &Arc<Cached<PodInfo>>, now: Instant) {
        let kept = self.snapshot.nomination(&pod.uid).map(str::to_owned);
        let wanted = if pod.node.is_some() {
            None
        } else if old.is_none_or(|old| old.nominated != pod.nominated) {
            pod.nominated.clone()
        } else {
            kept.clone()
        };
        match (kept, wanted) {
            // Its view may be new: requests of a waiting pod can change.
            (_, Some(node)) => self.snapshot.nominate(&node, Arc::new(pod.view.clone())),
            (Some(_), None) => {
                self.snapshot.denominate(&pod.uid);
                self.queue.happened(Cause::PodGone, now);
            }
            (None, None) => {}
        }
    }

    fn forget(&mut self, key: &ObjectKey, now: Instant) {
        self.queue.remove(key);
        let Some(known) = self.pods.remove(key) else { return };
        let kept = self.snapshot.nomination(&known.pod.uid).is_some();
        self.snapshot.denominate(&known.pod.uid);
        if let Some(node) = &known.node {
            self.snapshot.remove_pod(node, &known.pod.uid);
        }
        if kept || known.node.is_some() {
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
                    let plan = volume_plan(&pod, &self.snapshot, &node);
                    if !plan.is_empty() {
                        let assumed = self.snapshot.volumes_mut().assume(&plan, &node);
                        self.volumes.insert(pod.uid.clone(), assumed);
                    }
                    known.node = Some(node.clone());
                    known.assumed = true;
                    self.snapshot.denominate(&pod.uid);
                    self.snapshot.add_pod(&node, Arc::new(pod.view.clone()));
                    return Some(Outcome::Bind(pod, node, plan));
                }
                Err(why) => {
                    self.queue.unschedulable(&key, why.plugins, now);
                    if let Some(preemption) = &why.preemption {
                        preemption.displaced.iter().for_each(|other| self.snapshot.denominate(&other.uid));
                        self.snapshot.nominate(&preemption.node, Arc::new(pod.view.clone()));
                    } else if why.hopeless && self.snapshot.nomination(&pod.uid).is_some() {
                        self.snapshot.denominate(&pod.uid);
                        self.queue.happened(Cause::PodGone, now);
                    }
                    let (message, preemption, hopeless) = (why.message, why.preemption, why.hopeless);
                    return Some(Outcome::Refuse(pod, Refusal { message, preemption, hopeless }));
                }
            }
        }
    }

    /// A pod whose victims were not told to go tries again.
    pub fn refused(&mut self, refused: &Refused, now: Instant) {
        if refused.failed && self.pods.get(&refused.key).is_some_and(|known| known.pod.uid == refused.uid) {
            self.snapshot.denominate(&refused.uid);
            self.queue.again(&refused.key, now);
        }
    }

    pub fn bound(&mut self, bound: Bound, now: Instant) {
        if let Some(assumed) = self.volumes.remove(&bound.uid)
            && bound.result.is_err()
        {
            self.snapshot.volumes_mut().forget(&assumed);
        }
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
    old.labels != new.labels
        || old.requests != new.requests
        || old.deleting != new.deleting
        || old.preempted != new.preempted
        || old.started != new.started
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

//! One pod's worker: sees the runtime, asks `podsync` what to do, starts it, writes the status; sleeps until something happens.

mod act;
mod admit;
mod end;
mod grant;
mod look;
mod outcome;
mod probing;

use crate::node::{Node, PodHandle};
use crate::probes::Verdict;
use crate::static_pods::is_static;
use crate::status::StatusWriter;
use crate::volumes;
use act::Done;
use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use podsync::{ContainerKind, Memory, Observed, Pins};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Sleep when no time alone changes anything.
const IDLE: Duration = Duration::from_secs(3600);
/// The runtime is asked again this often even without news.
const RELIST: Duration = Duration::from_secs(300);
/// Delay before a failed clean-up is tried again.
const CLEANUP_RETRY: Duration = Duration::from_secs(2);

/// The worker of one pod.
pub struct Worker {
    node: Arc<Node>,
    uid: String,
    handle: Arc<PodHandle>,
    /// The pod as it may run: with the resources that the node has granted.
    pod: Arc<Pod>,
    /// The pod as the API has it.
    wanted: Arc<Pod>,
    memory: Memory,
    observed: Observed,
    dead: HashMap<String, podsync::Container>,
    operations: JoinSet<Done>,
    /// By container id; the token ends all but the readiness probe.
    probes: HashMap<String, (CancellationToken, AbortOnDropHandle<()>)>,
    verdicts: (mpsc::UnboundedSender<Verdict>, mpsc::UnboundedReceiver<Verdict>),
    turning: BTreeMap<String, Timestamp>,
    crash_told: HashMap<String, u32>,
    refresh_at: Option<Timestamp>,
    refresh_due: bool,
    told: (Option<BTreeMap<String, String>>, Option<BTreeMap<String, String>>),
    resizing: HashSet<String>,
    /// Set while a resize is under way, to tell of its end.
    resize_told: bool,
    resize_retry_at: Option<Timestamp>,
    /// The pod's generation whose resize was last told to wait.
    pending_told: Option<i64>,
    room_retry_at: Option<Timestamp>,
    writer: StatusWriter,
    seen: bool,
    deadline_told: bool,
    /// Ids of the containers that live, for those that end after others.
    living: watch::Sender<BTreeSet<String>>,
}

impl Worker {
    /// A worker for a pod of this node.
    pub fn new(node: Arc<Node>, uid: String, handle: Arc<PodHandle>) -> Worker {
        let pod = handle.pod.borrow().clone();
        Worker {
            writer: StatusWriter::new(node.client.clone()),
            node,
            uid,
            handle,
            wanted: pod.clone(),
            pod,
            memory: Memory::default(),
            observed: Observed::default(),
            dead: HashMap::new(),
            operations: JoinSet::new(),
            probes: HashMap::new(),
            verdicts: mpsc::unbounded_channel(),
            turning: BTreeMap::new(),
            crash_told: HashMap::new(),
            refresh_at: None,
            refresh_due: false,
            told: (None, None),
            resizing: HashSet::new(),
            resize_told: false,
            resize_retry_at: None,
            pending_told: None,
            room_retry_at: None,
            seen: false,
            deadline_told: false,
            living: watch::Sender::default(),
        }
    }

    /// Runs until the pod is gone from node and API, or `stop`. Containers live on after `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut relist_at = tokio::time::Instant::now() + RELIST;
        loop {
            let newest = self.handle.pod.borrow().clone();
            // the answer to our own status write may be newer than what the watch has brought
            if version(&newest) >= version(&self.wanted) {
                self.wanted = newest;
            }
            self.pod = self.as_granted();
            if self.handle.vanished.load(Ordering::Acquire) {
                self.memory.terminate = true;
            }
            let news = self.handle.runtime_news.swap(false, Ordering::AcqRel);
            if (news || !self.seen)
                && let Err(status) = self.look().await
            {
                tracing::warn!(pod = %self.uid, "cannot read the runtime: {status}");
                self.handle.runtime_news.store(true, Ordering::Release);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(1)) => continue,
                }
            }
            let look_at = self.unsettled_exits();
            if self.handle.objects_news.swap(false, Ordering::AcqRel) {
                self.memory.retry_at.clear();
                self.memory.sandbox_retry_at = None;
                self.refresh_due = true;
            }
            let now = Timestamp::now();
            self.turn_waiting(now);
            self.refresh_volumes(now).await;
            self.admit();
            self.grant(now);
            self.heed_eviction();
            let mut observed = self.observed.clone();
            if let Some(status) = &self.pod.status {
                observed.absorb(status, &self.memory.reborn);
            }
            let plan = podsync::plan(&self.pod, &observed, &self.memory, now);
            self.tell_crash_loops(&observed, now);
            self.tell_deadline(now);
            let acted = !plan.actions.is_empty();
            if plan.ended && !self.handle.ended.swap(true, Ordering::AcqRel) {
                self.room_is_free();
            }
            self.handle.ended.store(plan.ended, Ordering::Release);
            for action in plan.actions {
                self.act(action);
            }
            self.resize(now);
            self.tell_resize(&observed);
            self.keep_probes();
            self.publish();
            let pins = Pins { host_ips: self.node.host_ips() };
            let status = podsync::status(&self.pod, &observed, &self.memory, &pins, now);
            self.report(status).await;
            let leaving = self.pod.metadata.deletion_timestamp.is_some() || self.memory.terminate;
            if plan.ended && leaving && !acted {
                match self.clean_up().await {
                    Ok(()) => return,
                    Err(cause) => {
                        tracing::warn!(pod = %self.uid, "clean-up failed, trying again: {cause}");
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = tokio::time::sleep(CLEANUP_RETRY) => {}
                        }
                        self.handle.runtime_news.store(true, Ordering::Release);
                        continue;
                    }
                }
            }
            let wake = [
                plan.wake_at,
                look_at,
                self.refresh_at,
                self.resize_retry_at,
                self.room_retry_at,
                self.turning.values().min().copied(),
                self.writer.retry_at(),
            ];
            let sleep = wake.into_iter().flatten().min().map(|at| at.duration_since(Timestamp::now()));
            let sleep = sleep.map_or(IDLE, |d| Duration::try_from(d).unwrap_or(Duration::ZERO));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.handle.wake.notified() => {}
                () = tokio::time::sleep(sleep) => {
                    if look_at.is_some() {
                        self.handle.runtime_news.store(true, Ordering::Release);
                    }
                }
                () = tokio::time::sleep_until(relist_at) => {
                    self.handle.runtime_news.store(true, Ordering::Release);
                    relist_at = tokio::time::Instant::now() + RELIST;
                }
                Some(verdict) = self.verdicts.1.recv() => self.judge(verdict),
                Some(done) = self.operations.join_next(), if !self.operations.is_empty() => {
                    if let Ok(done) = done { self.finish(done) } else { self.recover_from_panic() }
                    while let Some(Ok(done)) = self.operations.try_join_next() {
                        self.finish(done);
                    }
                    self.handle.runtime_news.store(true, Ordering::Release);
                }
            }
        }
    }

    /// Writes the status to the API: a static pod's to its mirror.
    async fn report(&mut self, status: PodStatus) {
        if self.handle.vanished.load(Ordering::Acquire) {
            return;
        }
        if !is_static(&self.pod) {
            if let Some(pod) = self.writer.write(&self.pod, status).await {
                self.wanted = Arc::new(pod);
                self.pod = self.as_granted();
            }
            return;
        }
        let mirror = self.handle.mirror.borrow().clone();
        if let Some(mirror) = mirror {
            self.writer.write(&mirror, status.clone()).await;
        }
        // nobody else keeps the status of a static pod
        let pod = Pod { status: Some(status), ..(*self.pod).clone() };
        self.pod = Arc::new(pod);
        self.wanted = self.pod.clone();
        self.handle.pod.send_replace(self.pod.clone());
    }

    /// A panicking operation must not leave its container marked as busy for ever.
    fn recover_from_panic(&mut self) {
        tracing::error!(pod = %self.uid, "an operation panicked");
        if self.operations.is_empty() {
            self.memory.starting.clear();
            self.memory.stopping.clear();
            self.resizing.clear();
        }
    }

    fn spec(&self, name: &str) -> Option<(ContainerKind, Container)> {
        podsync::container(self.pod.spec.as_ref()?, name)
    }

    fn ips(&self) -> Vec<String> {
        let host = self.pod.spec.as_ref().is_some_and(podsync::is_host_network);
        match self.observed.sandbox() {
            _ if host => self.node.host_ips(),
            Some(sandbox) => sandbox.ips.clone(),
            None => Vec::new(),
        }
    }

    /// Brings volumes up to date after a change of their objects or when a token grows old.
    async fn refresh_volumes(&mut self, now: Timestamp) {
        // downward API volumes show labels and annotations as they are now
        let meta = &self.pod.metadata;
        let told = self.told.0 == meta.labels && self.told.1 == meta.annotations;
        let due = self.refresh_due || !told || self.refresh_at.is_some_and(|at| at <= now);
        let up = self.observed.sandbox().is_some_and(|s| s.ready);
        let leaving = self.pod.metadata.deletion_timestamp.is_some() || self.memory.terminate;
        if !due || !up || leaving {
            return;
        }
        self.refresh_due = false;
        self.told = (meta.labels.clone(), meta.annotations.clone());
        match volumes::prepare(&self.node, &self.pod).await {
            Ok(prepared) => self.refresh_at = prepared.refresh_at,
            Err(error) => {
                let text = format!("MountVolume.SetUp failed for volume \"{}\" : {}", error.volume, error.cause);
                self.node.event(&self.pod, None, EventKind::Warning, "FailedMount", text);
                self.refresh_at = now.checked_add(SignedDuration::from_secs(60)).ok();
            }
        }
    }
}

/// The resourceVersion as the number that it is; static pods have none.
fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

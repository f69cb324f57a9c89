//! One pod's worker: sees the runtime, asks `podsync` what to do, starts it, writes the status; sleeps until something happens.

use crate::node::{Node, PodHandle, PodView, RunningContainer};
use crate::operations::{self, Failure, Start, Stop};
use crate::probes::{self, Target, Verdict};
use crate::runtime::{cri, label, observe, sandbox_created};
use crate::status::StatusWriter;
use crate::{cgroups, sandbox, volumes};
use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use kube::api::{Api, DeleteParams, Preconditions};
use podsync::{Action, ContainerKind, ContainerState, KillReason, Memory, Observed, Pins, ProbeKind};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Sleep when no time alone changes anything.
const IDLE: Duration = Duration::from_secs(3600);
/// The runtime is asked again this often even without news.
const RELIST: Duration = Duration::from_secs(300);
/// How long `ErrImagePull` stands before it becomes `ImagePullBackOff`.
const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(2);
/// The runtime reports an end a little before its own books have it: first and last delay before asking again.
const EXIT_LOOK_FIRST: SignedDuration = SignedDuration::from_millis(5);
const EXIT_LOOKS_MAX: u32 = 12;
/// Delay before a failed resize is tried again.
const RESIZE_RETRY: SignedDuration = SignedDuration::from_secs(5);
/// Delay before a failed clean-up is tried again.
const CLEANUP_RETRY: Duration = Duration::from_secs(2);

enum Done {
    Sandbox(Result<String, Failure>),
    Started(String, ResourceRequirements, Result<String, Failure>),
    Stopped(String),
    Resized(String, ResourceRequirements, Result<(), String>),
}

/// The worker of one pod.
pub struct Worker {
    node: Arc<Node>,
    uid: String,
    handle: Arc<PodHandle>,
    pod: Arc<Pod>,
    memory: Memory,
    observed: Observed,
    dead: HashMap<String, podsync::Container>,
    operations: JoinSet<Done>,
    probes: HashMap<String, AbortOnDropHandle<()>>,
    verdicts: (mpsc::UnboundedSender<Verdict>, mpsc::UnboundedReceiver<Verdict>),
    turning: BTreeMap<String, Timestamp>,
    crash_told: HashMap<String, u32>,
    refresh_at: Option<Timestamp>,
    refresh_due: bool,
    told: (Option<BTreeMap<String, String>>, Option<BTreeMap<String, String>>),
    resizing: HashSet<String>,
    resize_retry_at: Option<Timestamp>,
    writer: StatusWriter,
    seen: bool,
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
            resize_retry_at: None,
            seen: false,
        }
    }

    /// Runs until the pod is gone from node and API, or `stop`. Containers live on after `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut relist_at = tokio::time::Instant::now() + RELIST;
        loop {
            let newest = self.handle.pod.borrow().clone();
            // the answer to our own status write may be newer than what the watch has brought
            if version(&newest) >= version(&self.pod) {
                self.pod = newest;
            }
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
            let mut observed = self.observed.clone();
            if let Some(status) = &self.pod.status {
                observed.absorb(status);
            }
            let plan = podsync::plan(&self.pod, &observed, &self.memory, now);
            self.tell_crash_loops(&observed, now);
            let acted = !plan.actions.is_empty();
            for action in plan.actions {
                self.act(action);
            }
            self.resize(now);
            self.keep_probes();
            self.publish();
            let pins = Pins { host_ips: self.node.host_ips() };
            let status = podsync::status(&self.pod, &observed, &self.memory, &pins, now);
            if !self.handle.vanished.load(Ordering::Acquire)
                && let Some(pod) = self.writer.write(&self.pod, status).await
            {
                self.pod = Arc::new(pod);
            }
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

    /// A panicking operation must not leave its container marked as busy for ever.
    fn recover_from_panic(&mut self) {
        tracing::error!(pod = %self.uid, "an operation panicked");
        if self.operations.is_empty() {
            self.memory.starting.clear();
            self.memory.stopping.clear();
            self.resizing.clear();
        }
    }

    /// Reads sandboxes and containers of this pod from the runtime.
    async fn look(&mut self) -> Result<(), tonic::Status> {
        let runtime = &self.node.runtime;
        let (sandboxes, containers) =
            tokio::try_join!(runtime.list_sandboxes(Some(&self.uid)), runtime.list_containers(Some(&self.uid)))?;
        let mut observed = Observed::default();
        for item in sandboxes {
            self.node.registry.own(&item.id, &self.uid);
            let ready = item.state == i32::from(cri::PodSandboxState::SandboxReady);
            let known = self.observed.sandboxes.iter().find(|s| s.id == item.id && s.ready && !s.ips.is_empty());
            let ips = match known {
                Some(sandbox) => sandbox.ips.clone(),
                None if ready => self.node.runtime.sandbox_ips(&item.id).await.unwrap_or_default(),
                None => Vec::new(),
            };
            observed.sandboxes.push(podsync::Sandbox {
                attempt: item.metadata.as_ref().map_or(0, |m| m.attempt),
                created: sandbox_created(&item),
                id: item.id,
                ready,
                ips,
            });
        }
        let mut dead = HashMap::new();
        for item in containers {
            self.node.registry.own(&item.id, &self.uid);
            let container = match self.dead.remove(&item.id) {
                Some(container) => container,
                None => {
                    let Some(status) = self.node.runtime.container(&item.id).await? else { continue };
                    let mut container = observe(&status, &item.pod_sandbox_id);
                    if container.state == ContainerState::Exited {
                        if let Some(message) = termination_message(&status) {
                            container.message = message;
                        }
                        self.probes.remove(&container.id);
                    }
                    container
                }
            };
            if container.state == ContainerState::Exited {
                dead.insert(container.id.clone(), container.clone());
            }
            observed.containers.push(container);
        }
        self.dead = dead;
        if !self.seen {
            self.adopt(&observed);
        }
        self.seen = true;
        self.observed = observed;
        Ok(())
    }

    /// When to look again because an end was reported that the runtime's answer does not show yet.
    fn unsettled_exits(&self) -> Option<Timestamp> {
        let mut exits = self.handle.exits.lock().unwrap_or_else(PoisonError::into_inner);
        exits.retain(|id, looks| {
            *looks += 1;
            let runs = self.observed.containers.iter().any(|c| c.id == *id && c.state != ContainerState::Exited);
            let up = self.observed.sandboxes.iter().any(|s| s.id == *id && s.ready);
            (runs || up) && *looks <= EXIT_LOOKS_MAX
        });
        let looks = exits.values().min()?;
        Timestamp::now().checked_add(EXIT_LOOK_FIRST * 2i32.pow((*looks).min(EXIT_LOOKS_MAX))).ok()
    }

    /// Containers that ran before this process did: what the API said about readiness still holds.
    fn adopt(&mut self, observed: &Observed) {
        let status = self.pod.status.clone().unwrap_or_default();
        let lists = [status.init_container_statuses, status.container_statuses];
        let known: Vec<_> = lists.into_iter().flatten().flatten().collect();
        for container in observed.containers.iter().filter(|c| c.state == ContainerState::Running) {
            let id = format!("containerd://{}", container.id);
            if let Some(old) = known.iter().find(|s| s.container_id.as_deref() == Some(&id)) {
                if old.started == Some(true) {
                    self.memory.started.insert(container.id.clone());
                }
                self.memory.ready.insert(container.id.clone(), old.ready);
            }
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

    /// The running container whose processes an ephemeral container of that name asks to see.
    fn debugged(&self, name: &str) -> Option<String> {
        let list = self.pod.spec.as_ref()?.ephemeral_containers.as_ref()?;
        let target = list.iter().find(|c| c.name == name)?.target_container_name.as_deref()?;
        self.observed.latest(target).filter(|c| c.state == ContainerState::Running).map(|c| c.id.clone())
    }

    /// Starts the resizes that are due.
    fn resize(&mut self, now: Timestamp) {
        let leaving = self.pod.metadata.deletion_timestamp.is_some() || self.memory.terminate;
        if leaving || self.resize_retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.resize_retry_at = None;
        for due in podsync::resizes(&self.pod, &self.observed, &self.memory) {
            let busy = self.resizing.contains(&due.id) || self.memory.stopping.contains(&due.id);
            let Some((_, spec)) = self.spec(&due.name).filter(|_| !busy) else { continue };
            if due.restart {
                // the pod's limits have to fit before its next container starts
                let limits = self.pod.spec.as_ref().map(podsync::pod_limits).unwrap_or_default();
                if let Err(error) = cgroups::ensure(&sandbox::cgroup_parent(&self.node, &self.pod), &limits) {
                    tracing::debug!(pod = %self.uid, "the pod's limits wait for its container: {error}");
                }
                let grace = podsync::grace_seconds(&self.pod);
                self.act(Action::Stop { id: due.id, name: due.name, reason: KillReason::SpecChanged, grace });
                continue;
            }
            self.resizing.insert(due.id.clone());
            let (node, pod) = (self.node.clone(), self.pod.clone());
            self.operations.spawn(async move {
                let result = operations::resize(&node, &pod, &spec, &due.id).await;
                Done::Resized(due.id, spec.resources.unwrap_or_default(), result)
            });
        }
    }

    /// Starts an action; its end wakes the worker.
    fn act(&mut self, action: Action) {
        let (node, pod) = (self.node.clone(), self.pod.clone());
        match action {
            Action::CreateSandbox { attempt } => {
                self.memory.starting.insert(String::new());
                if attempt > 0 {
                    let text = "Pod sandbox changed, it will be killed and re-created.".to_string();
                    self.node.event(&self.pod, None, EventKind::Normal, "SandboxChanged", text);
                }
                self.operations
                    .spawn(async move { Done::Sandbox(operations::create_sandbox(node, pod, attempt).await) });
            }
            Action::Start { name, kind, attempt, sandbox_id, crash } => {
                let Some((_, spec)) = self.spec(&name) else { return };
                self.memory.starting.insert(name.clone());
                if let Some(crash) = crash {
                    self.memory.crash.insert(name.clone(), crash);
                }
                let sandbox_attempt =
                    self.observed.sandboxes.iter().find(|s| s.id == sandbox_id).map_or(0, |s| s.attempt);
                let (init, ips) = (matches!(kind, ContainerKind::Init | ContainerKind::Sidecar), self.ips());
                let resources = spec.resources.clone().unwrap_or_default();
                let debugs = self.debugged(&name);
                let start = Start { node, pod, spec, init, attempt, sandbox_id, sandbox_attempt, ips, debugs };
                self.operations.spawn(async move { Done::Started(name, resources, start.run().await) });
            }
            Action::Stop { id, name, reason, grace } => {
                self.memory.stopping.insert(id.clone());
                if matches!(reason, KillReason::PodEnds) {
                    // readiness is of no interest any more, and a probe must not kill what ends anyway
                    self.probes.remove(&id);
                }
                let spec = self.spec(&name);
                let running = self.observed.containers.iter().any(|c| c.id == id && c.state == ContainerState::Running);
                let stop = Stop {
                    node,
                    pod,
                    init: spec
                        .as_ref()
                        .is_some_and(|(kind, _)| matches!(kind, ContainerKind::Init | ContainerKind::Sidecar)),
                    spec: spec.map(|(_, s)| s),
                    id: id.clone(),
                    name,
                    reason,
                    grace,
                    ip: self.ips().into_iter().next(),
                    running,
                };
                self.operations.spawn(async move {
                    stop.run().await;
                    Done::Stopped(id)
                });
            }
            Action::StopSandbox { id } => {
                self.memory.stopping.insert(id.clone());
                self.operations.spawn(async move {
                    if let Err(status) = node.runtime.stop_sandbox(&id).await {
                        let text = format!("error killing pod: failed to \"KillPodSandbox\": {status}");
                        node.event(&pod, None, EventKind::Warning, "FailedKillPod", text);
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    Done::Stopped(id)
                });
            }
            Action::RemoveSandbox { id } => {
                self.memory.stopping.insert(id.clone());
                self.operations.spawn(async move {
                    if let Err(status) = node.runtime.remove_sandbox(&id).await {
                        tracing::warn!("cannot remove sandbox {id}: {status}");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    Done::Stopped(id)
                });
            }
            Action::RemoveContainer { id } => {
                self.memory.stopping.insert(id.clone());
                let log = self.observed.containers.iter().find(|c| c.id == id).map(|c| PathBuf::from(&c.log_path));
                self.operations.spawn(async move {
                    match node.runtime.remove_container(&id).await {
                        Ok(()) => {
                            if let Some(log) = log.filter(|p| p.is_absolute()) {
                                crate::logs::remove(&log);
                            }
                        }
                        Err(status) => {
                            tracing::warn!("cannot remove container {id}: {status}");
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                    }
                    Done::Stopped(id)
                });
            }
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Sandbox(result) => {
                self.memory.starting.remove("");
                self.memory.sandbox_retry_at = result.err().map(|f| f.retry_at);
                self.refresh_due = true;
            }
            Done::Started(name, resources, Ok(id)) => {
                self.memory.resources.insert(id.clone(), resources);
                self.memory.starting.remove(&name);
                self.memory.waiting.remove(&name);
                self.memory.retry_at.remove(&name);
                self.turning.remove(&name);
                if self.spec(&name).is_some_and(|(_, s)| s.startup_probe.is_none()) {
                    self.memory.started.insert(id);
                }
            }
            Done::Started(name, _, Err(failure)) => {
                self.memory.starting.remove(&name);
                if failure.waiting.reason == "ErrImagePull" {
                    let now = Timestamp::now();
                    self.turning.insert(name.clone(), now.checked_add(PULL_ERROR_SHOWN).unwrap_or(now));
                }
                self.memory.retry_at.insert(name.clone(), failure.retry_at);
                self.memory.waiting.insert(name, failure.waiting);
            }
            Done::Resized(id, resources, result) => {
                self.resizing.remove(&id);
                match result {
                    Ok(()) => drop(self.memory.resources.insert(id, resources)),
                    Err(cause) => {
                        tracing::warn!(pod = %self.uid, "cannot resize container {id}: {cause}");
                        let now = Timestamp::now();
                        self.resize_retry_at = now.checked_add(RESIZE_RETRY).ok();
                    }
                }
            }
            Done::Stopped(id) => {
                self.memory.stopping.remove(&id);
                self.memory.condemned.remove(&id);
            }
        }
    }

    /// `ErrImagePull` turns into `ImagePullBackOff` while the next try is waited for.
    fn turn_waiting(&mut self, now: Timestamp) {
        let due: Vec<String> = self.turning.iter().filter(|(_, at)| **at <= now).map(|(n, _)| n.clone()).collect();
        for name in due {
            self.turning.remove(&name);
            let (Some(waiting), Some((kind, spec))) = (self.memory.waiting.get(&name).cloned(), self.spec(&name))
            else {
                continue;
            };
            let image = spec.image.unwrap_or_default();
            let text = format!("Back-off pulling image \"{image}\"");
            let at = Some((name.as_str(), kind != ContainerKind::Main));
            self.node.event(&self.pod, at, EventKind::Normal, "BackOff", text.clone());
            self.node.event(&self.pod, at, EventKind::Warning, "Failed", "Error: ImagePullBackOff".into());
            let message = format!("{text}: ErrImagePull: {}", waiting.message);
            let turned = podsync::Waiting { reason: "ImagePullBackOff".into(), message };
            self.memory.waiting.insert(name, turned);
        }
    }

    /// One `BackOff` event per crash.
    fn tell_crash_loops(&mut self, observed: &Observed, now: Timestamp) {
        let Some(spec) = self.pod.spec.clone() else { return };
        for (kind, container) in podsync::all_containers(&spec) {
            let Some(latest) = observed.latest(&container.name) else { continue };
            let held = podsync::Backoff::not_before(
                self.memory.crash.get(&latest.name).copied(),
                latest.finished.unwrap_or(latest.created),
            );
            let waits = latest.state == ContainerState::Exited && held.is_some_and(|at| at > now);
            if waits && self.crash_told.get(&latest.name) != Some(&latest.attempt) {
                self.crash_told.insert(latest.name.clone(), latest.attempt);
                let meta = &self.pod.metadata;
                let name = meta.name.as_deref().unwrap_or_default();
                let namespace = meta.namespace.as_deref().unwrap_or_default();
                let text = format!(
                    "Back-off restarting failed container {} in pod {name}_{namespace}({})",
                    latest.name, self.uid
                );
                let at = Some((latest.name.as_str(), kind != ContainerKind::Main));
                self.node.event(&self.pod, at, EventKind::Warning, "BackOff", text);
            }
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

    fn judge(&mut self, verdict: Verdict) {
        let Verdict { id, kind, passed } = verdict;
        let name = self.observed.containers.iter().find(|c| c.id == id).map(|c| c.name.clone()).unwrap_or_default();
        match kind {
            ProbeKind::Startup if passed => {
                self.memory.started.insert(id);
            }
            ProbeKind::Readiness => {
                self.memory.ready.insert(id, passed);
            }
            _ if !passed => {
                let word = kind.as_str().to_lowercase();
                let text = format!("Container {name} failed {word} probe, will be restarted");
                self.memory.condemned.insert(id, text);
            }
            _ => {}
        }
    }

    /// Probes run for exactly the running containers that have some.
    fn keep_probes(&mut self) {
        let Some(spec) = self.pod.spec.clone() else { return };
        let ip = self.ips().into_iter().next().unwrap_or_default();
        let now = Timestamp::now();
        for (kind, container) in podsync::all_containers(&spec) {
            let has = container.liveness_probe.is_some() || container.readiness_probe.is_some();
            if kind == ContainerKind::Init {
                continue;
            }
            let Some(latest) = self.observed.latest(&container.name) else { continue };
            let busy = self.memory.stopping.contains(&latest.id) || self.memory.starting.contains(&latest.name);
            if latest.state != ContainerState::Running || busy {
                continue;
            }
            if container.startup_probe.is_none() {
                self.memory.started.insert(latest.id.clone());
            }
            if (!has && container.startup_probe.is_none()) || self.probes.contains_key(&latest.id) {
                continue;
            }
            if container.readiness_probe.is_some() {
                self.memory.ready.entry(latest.id.clone()).or_insert(false);
            }
            let age = latest.started.map(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default());
            let mut probed = container.clone();
            // an adopted container that has started once does not start again
            if self.memory.started.contains(&latest.id) {
                probed.startup_probe = None;
            }
            let target = Target {
                node: self.node.clone(),
                pod: self.pod.clone(),
                spec: probed,
                id: latest.id.clone(),
                ip: ip.clone(),
                init: kind != ContainerKind::Main,
                age: age.unwrap_or_default(),
                verdicts: self.verdicts.0.clone(),
            };
            self.probes.insert(latest.id.clone(), AbortOnDropHandle::new(tokio::spawn(probes::run(target))));
        }
        let running =
            |id: &String| self.observed.containers.iter().any(|c| c.id == *id && c.state == ContainerState::Running);
        self.probes.retain(|id, _| running(id));
        let known = |id: &String| self.observed.containers.iter().any(|c| c.id == *id);
        self.memory.ready.retain(|id, _| known(id));
        self.memory.resources.retain(|id, _| known(id));
    }

    /// What the server may show.
    fn publish(&self) {
        let mut view = PodView { ips: self.ips(), ..Default::default() };
        view.sandbox_id = self.observed.sandbox().filter(|s| s.ready).map(|s| s.id.clone());
        for container in &self.observed.containers {
            let newest = self.observed.latest(&container.name);
            if newest.is_none_or(|n| n.id != container.id) {
                continue;
            }
            let before = self.observed.containers.iter().filter(|c| c.name == container.name && c.id != container.id);
            let previous = before.max_by_key(|c| c.attempt).map(|c| PathBuf::from(&c.log_path));
            view.containers.insert(
                container.name.clone(),
                RunningContainer {
                    id: container.id.clone(),
                    log_path: PathBuf::from(&container.log_path),
                    previous_log_path: previous,
                    running: container.state == ContainerState::Running,
                },
            );
        }
        *self.handle.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// Removes everything of the pod from the node, then from the API.
    async fn clean_up(&mut self) -> anyhow::Result<()> {
        self.probes.clear();
        for sandbox in &self.observed.sandboxes {
            self.node.runtime.remove_sandbox(&sandbox.id).await?;
        }
        let dir = volumes::pod_dir(&self.node, &self.uid);
        let logs = sandbox::log_directory(&self.node, &self.pod);
        let group = sandbox::cgroup_parent(&self.node, &self.pod);
        let spec_known = self.pod.spec.is_some();
        tokio::task::spawn_blocking(move || {
            volumes::remove(&dir)?;
            let _ = std::fs::remove_dir_all(&logs);
            if spec_known {
                cgroups::remove(&group);
            }
            Ok::<_, std::io::Error>(())
        })
        .await??;
        self.node.objects.release(&self.uid);
        self.node.tokens.release(&self.uid);
        self.node.images.release(&self.uid);
        let deleting = self.pod.metadata.deletion_timestamp.is_some();
        if deleting && !self.handle.vanished.load(Ordering::Acquire) {
            let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
            let name = self.pod.metadata.name.as_deref().unwrap_or_default();
            let pods: Api<Pod> = Api::namespaced(self.node.client.clone(), namespace);
            let preconditions = Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None });
            let parameters = DeleteParams { preconditions, ..DeleteParams::default().grace_period(0) };
            match pods.delete(name, &parameters).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// The resourceVersion as the number that it is; static pods have none.
fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// What the container left as its last words: the file, or the end of its log if it asked for that.
fn termination_message(status: &cri::ContainerStatus) -> Option<String> {
    const FILE_BYTES_MAX: usize = 4096;
    const LOG_BYTES_MAX: u64 = 2048;
    const LOG_LINES_MAX: usize = 80;
    if status.reason == "StartError" {
        return Some(status.message.clone());
    }
    let path = status.annotations.get(label::TERMINATION_PATH)?;
    let mut text = std::fs::read(path).unwrap_or_default();
    text.truncate(FILE_BYTES_MAX);
    let fallback = status.annotations.get(label::TERMINATION_POLICY).is_some_and(|p| p == "FallbackToLogsOnError");
    if text.is_empty() && fallback && status.exit_code != 0 {
        return Some(crate::logs::tail(std::path::Path::new(&status.log_path), LOG_LINES_MAX, LOG_BYTES_MAX));
    }
    (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
}

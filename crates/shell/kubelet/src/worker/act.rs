//! Starts what the plan asks for: each action is a task of its own, whose end wakes the worker.

use super::Worker;
use crate::operations::{self, Failure, Start, Stop};
use client::EventKind;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use podsync::{Action, CgroupLimits, ContainerKind, ContainerState, KillReason};
use std::path::PathBuf;
use std::time::Duration;

/// An operation that has ended.
pub(super) enum Done {
    Sandbox(Result<String, Failure>),
    Started(String, ResourceRequirements, Result<String, Failure>),
    Stopped(String),
    Resized(String, ResourceRequirements, Result<(), String>),
    PodResized(CgroupLimits, Result<(), String>),
}

/// What the container runs with once it has been made or resized.
fn resources(pod: &Pod, container: &Container) -> ResourceRequirements {
    pod.spec.as_ref().map(|spec| podsync::effective_resources(spec, container)).unwrap_or_default()
}

impl Worker {
    /// The running container whose processes an ephemeral container of that name asks to see.
    pub(super) fn debugged(&self, name: &str) -> Option<String> {
        let list = self.pod.spec.as_ref()?.ephemeral_containers.as_ref()?;
        let target = list.iter().find(|c| c.name == name)?.target_container_name.as_deref()?;
        self.observed.latest(target).filter(|c| c.state == ContainerState::Running).map(|c| c.id.clone())
    }

    /// Starts the resizes that are due.
    pub(super) fn resize(&mut self, now: Timestamp) {
        let leaving = self.pod.metadata.deletion_timestamp.is_some() || self.memory.terminate;
        if leaving || self.resize_retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.resize_retry_at = None;
        let Some(limits) = self.pod.spec.as_ref().map(podsync::pod_limits) else { return };
        let held = *self.memory.pod_limits.get_or_insert(limits);
        let all = podsync::resizes(&self.pod, &self.observed, &self.memory);
        if all.is_empty() {
            self.resize_pod(held, limits);
            return;
        }
        // the pod's group has to hold its containers both as they are and as they will be
        let between = held.covering(limits);
        for due in all {
            let busy = self.resizing.contains(&due.id) || self.memory.stopping.contains(&due.id);
            let Some((_, spec)) = self.spec(&due.name).filter(|_| !busy) else { continue };
            if due.restart {
                // the next container starts in it
                if let Err(error) = operations::widen(&self.node, &self.pod, &between) {
                    self.resize_failed(error);
                    return;
                }
                let (grace, reason) = (podsync::grace_seconds(&self.pod), KillReason::Resized);
                self.act(Action::Stop { id: due.id, name: due.name, reason, grace, after: Vec::new() });
                continue;
            }
            self.resizing.insert(due.id.clone());
            let (node, pod) = (self.node.clone(), self.pod.clone());
            self.operations.spawn(async move {
                let result = operations::resize(&node, &pod, &spec, &due.id, due.shrinks_to, &between).await;
                Done::Resized(due.id, resources(&pod, &spec), result)
            });
        }
    }

    /// Brings the pod's own control group from what it has to what the pod was granted, once its containers are there.
    fn resize_pod(&mut self, held: CgroupLimits, limits: CgroupLimits) {
        let up = self.observed.sandbox().is_some_and(|s| s.ready);
        if !up || held == limits || !self.resizing.insert(String::new()) {
            return;
        }
        let (node, pod) = (self.node.clone(), self.pod.clone());
        self.operations.spawn(async move {
            let result = operations::resize_pod(&node, &pod, &held, &limits);
            Done::PodResized(limits, result)
        });
    }

    /// Starts an action; its end wakes the worker.
    pub(super) fn act(&mut self, action: Action) {
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
                let resources = resources(&pod, &spec);
                let debugs = self.debugged(&name);
                let start = Start { node, pod, spec, init, attempt, sandbox_id, sandbox_attempt, ips, debugs };
                self.operations.spawn(async move { Done::Started(name, resources, start.run().await) });
            }
            Action::Stop { id, name, reason, grace, after } => {
                self.memory.stopping.insert(id.clone());
                if reason.replaces() {
                    self.memory.replaced.insert(id.clone());
                }
                if matches!(reason, KillReason::PodEnds) {
                    // a probe must not kill what ends anyway; readiness still tells who serves
                    if let Some((kills, _)) = self.probes.get(&id) {
                        kills.cancel();
                    }
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
                    after,
                    living: self.living.subscribe(),
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
            Action::RemoveContainer { id, restart } => {
                self.memory.stopping.insert(id.clone());
                let keep_log = restart.is_some();
                if let Some(restart) = restart {
                    self.memory.reborn.insert(id.clone());
                    self.memory.crash.extend(restart.crash.map(|crash| (restart.name, crash)));
                }
                let log = self.observed.containers.iter().find(|c| c.id == id).map(|c| PathBuf::from(&c.log_path));
                self.operations.spawn(async move {
                    match node.runtime.remove_container(&id).await {
                        Ok(()) => {
                            if let Some(log) = log.filter(|p| p.is_absolute() && !keep_log) {
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
}

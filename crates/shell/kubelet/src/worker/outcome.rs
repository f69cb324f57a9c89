//! What the end of an operation changes in the worker's memory, and the events that tell of waiting.

use super::Worker;
use super::act::Done;
use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use podsync::{ContainerKind, ContainerState, Observed};

/// How long `ErrImagePull` stands before it becomes `ImagePullBackOff`.
const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(2);

impl Worker {
    pub(super) fn finish(&mut self, done: Done) {
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
                    Ok(()) => {
                        self.memory.resources.insert(id, resources);
                        self.memory.resize_error = None;
                    }
                    Err(cause) => self.resize_failed(cause),
                }
            }
            Done::PodResized(limits, result) => {
                self.resizing.remove("");
                match result {
                    Ok(()) => {
                        self.memory.pod_limits = Some(limits);
                        self.memory.resize_error = None;
                    }
                    Err(cause) => self.resize_failed(cause),
                }
            }
            Done::Stopped(id) => {
                self.memory.stopping.remove(&id);
                self.memory.condemned.remove(&id);
            }
        }
    }

    /// `ErrImagePull` turns into `ImagePullBackOff` while the next try is waited for.
    pub(super) fn turn_waiting(&mut self, now: Timestamp) {
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

    /// One event when the pod has been active for too long.
    pub(super) fn tell_deadline(&mut self, now: Timestamp) {
        let done = self.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if self.deadline_told || matches!(done, Some("Failed" | "Succeeded")) {
            return;
        }
        if podsync::is_past_deadline(&self.pod, now) {
            self.deadline_told = true;
            let text = podsync::DEADLINE_MESSAGE.to_string();
            self.node.event(&self.pod, None, EventKind::Normal, "DeadlineExceeded", text);
        }
    }

    /// One `BackOff` event per crash.
    pub(super) fn tell_crash_loops(&mut self, observed: &Observed, now: Timestamp) {
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
}

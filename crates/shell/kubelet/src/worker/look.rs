//! What the worker sees: sandboxes and containers in the runtime, ends not yet on its books, and what the server may show of it.

use super::Worker;
use crate::node::{PodView, RunningContainer};
use crate::runtime::{cri, label, observe, sandbox_created};
use jiff::{SignedDuration, Timestamp};
use podsync::{ContainerState, Observed};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::PoisonError;

/// The runtime reports an end a little before its own books have it: first and last delay before asking again.
const EXIT_LOOK_FIRST: SignedDuration = SignedDuration::from_millis(5);
const EXIT_LOOKS_MAX: u32 = 12;

impl Worker {
    /// Reads sandboxes and containers of this pod from the runtime.
    pub(super) async fn look(&mut self) -> Result<(), tonic::Status> {
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
        let alive = observed.containers.iter().filter(|c| c.state != ContainerState::Exited);
        self.living.send_replace(alive.map(|c| c.id.clone()).collect());
        self.observed = observed;
        Ok(())
    }

    /// When to look again because an end was reported that the runtime's answer does not show yet.
    pub(super) fn unsettled_exits(&self) -> Option<Timestamp> {
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
    pub(super) fn adopt(&mut self, observed: &Observed) {
        self.adopt_resize();
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
                if let Some(has) = &old.resources {
                    let has = podsync::inherit(status.resources.as_ref(), has);
                    self.memory.resources.insert(container.id.clone(), has);
                }
            }
        }
    }

    /// What the server may show.
    pub(super) fn publish(&self) {
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
                    started: container.started,
                    image: container.image.clone(),
                },
            );
        }
        *self.handle.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
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

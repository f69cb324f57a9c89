//! Keeps the probes of the pod's running containers going and takes their verdicts.

use super::Worker;
use crate::probes::{self, Target, Verdict};
use jiff::Timestamp;
use podsync::{ContainerKind, ContainerState, ProbeKind};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

impl Worker {
    pub(super) fn judge(&mut self, verdict: Verdict) {
        let Verdict { id, kind, passed } = verdict;
        match kind {
            ProbeKind::Startup if passed => {
                self.memory.started.insert(id);
            }
            ProbeKind::Readiness => {
                self.memory.ready.insert(id, passed);
            }
            _ if !passed => {
                self.memory.condemned.insert(id, kind);
            }
            _ => {}
        }
    }

    /// Probes run for exactly the running containers that have some.
    pub(super) fn keep_probes(&mut self) {
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
            let kills = CancellationToken::new();
            let task = AbortOnDropHandle::new(tokio::spawn(probes::run(target, kills.clone())));
            self.probes.insert(latest.id.clone(), (kills, task));
        }
        let running =
            |id: &String| self.observed.containers.iter().any(|c| c.id == *id && c.state == ContainerState::Running);
        self.probes.retain(|id, _| running(id));
        let known = |id: &String| self.observed.containers.iter().any(|c| c.id == *id);
        self.memory.ready.retain(|id, _| known(id));
        self.memory.resources.retain(|id, _| known(id));
        self.memory.replaced.retain(|id| known(id));
    }
}

//! The next runtime actions for a pod: sandbox first, init containers in order, then the rest; restarts and endings.

use crate::action::{Action, KillReason, Plan};
use crate::ending::{alive, begin_anew, end_pod, stop};
use crate::restart::{crash_hold, deadline, is_past_deadline, may_restart, restarts, whole_restart};
use crate::status::pod_is_finished;
use crate::{
    Backoff, Container, ContainerKind, ContainerState, Memory, Observed, ProbeKind, RESTARTING_ALL, all_containers,
    grace_seconds,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod};

/// Decides what to do for `pod`. Running it twice on the same input gives the same plan.
pub fn plan(pod: &Pod, observed: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &pod.spec else { return plan };
    remove_leftovers(observed, memory, &mut plan);

    if let Some(at) = deadline(pod) {
        plan.wake(at);
    }
    let ends = pod.metadata.deletion_timestamp.is_some()
        || memory.terminate
        || memory.failed.is_some()
        || is_past_deadline(pod, now)
        || api_phase_is_terminal(pod)
        || pod_is_finished(pod, observed, memory);
    if ends {
        end_pod(pod, observed, memory, &mut plan);
        return plan;
    }

    let network_ok = |ips: &[String]| crate::is_host_network(spec) || !ips.is_empty();
    let sandbox = observed.sandbox().filter(|s| s.ready && network_ok(&s.ips) && !memory.stopping.contains(&s.id));
    let Some(sandbox) = sandbox else {
        replace_sandbox(pod, observed, memory, now, &mut plan);
        return plan;
    };
    if let Some(cause) = whole_restart(pod, observed) {
        begin_anew(observed, memory, cause, now, &mut plan);
        return plan;
    }
    let mut starter = Starter { pod, observed, memory, now, sandbox_id: &sandbox.id, plan: &mut plan };
    starter.containers();
    plan
}

fn api_phase_is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Keeps the current and the previous container of each name.
fn remove_leftovers(observed: &Observed, memory: &Memory, plan: &mut Plan) {
    let mut names: Vec<&str> = observed.containers.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let mut same: Vec<&Container> = observed.containers.iter().filter(|c| c.name == name).collect();
        same.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created)));
        for old in same.iter().skip(2).filter(|c| c.state == ContainerState::Exited && !c.sandbox_id.is_empty()) {
            if !memory.stopping.contains(&old.id) {
                plan.actions.push(Action::RemoveContainer { id: old.id.clone(), restart: None });
            }
        }
    }
    let newest = observed.sandbox().map(|s| s.id.as_str());
    for sandbox in &observed.sandboxes {
        let used = observed.containers.iter().any(|c| c.sandbox_id == sandbox.id);
        if Some(sandbox.id.as_str()) != newest && !used && !memory.stopping.contains(&sandbox.id) {
            plan.actions.push(Action::RemoveSandbox { id: sandbox.id.clone() });
        }
    }
}

fn replace_sandbox(pod: &Pod, observed: &Observed, memory: &Memory, now: Timestamp, plan: &mut Plan) {
    let mut living = false;
    for container in observed.containers.iter().filter(|c| alive(c)) {
        living = true;
        stop(container, KillReason::SandboxChanged, grace_seconds(pod), memory, plan);
    }
    for sandbox in observed.sandboxes.iter().filter(|s| s.ready) {
        living = true;
        if !memory.stopping.contains(&sandbox.id) {
            plan.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
        }
    }
    if living || memory.starting.contains("") {
        return;
    }
    if let Some(at) = memory.sandbox_retry_at.filter(|at| *at > now) {
        plan.wake(at);
        return;
    }
    let attempt = observed.sandboxes.iter().map(|s| s.attempt + 1).max().unwrap_or(0);
    plan.actions.push(Action::CreateSandbox { attempt });
}

struct Starter<'a> {
    pod: &'a Pod,
    observed: &'a Observed,
    memory: &'a Memory,
    now: Timestamp,
    sandbox_id: &'a str,
    plan: &'a mut Plan,
}

impl Starter<'_> {
    fn here(&self, name: &str) -> Option<&Container> {
        self.observed.latest(name).filter(|c| c.sandbox_id == self.sandbox_id)
    }

    fn containers(&mut self) {
        let pod = self.pod;
        let Some(spec) = &pod.spec else { return };
        for container in crate::ephemeral_containers(spec) {
            if self.observed.latest(&container.name).is_none() {
                self.start(ContainerKind::Ephemeral, &container);
            }
        }
        let main_began = spec.containers.iter().any(|c| self.here(&c.name).is_some());
        for (kind, container) in all_containers(spec) {
            let go_on = match kind {
                ContainerKind::Init if main_began => true,
                ContainerKind::Init => self.init(container),
                ContainerKind::Sidecar => self.keep_running(kind, container) || main_began,
                ContainerKind::Main => {
                    self.keep_running(kind, container);
                    true
                }
                ContainerKind::Ephemeral => true,
            };
            if !go_on {
                return;
            }
        }
    }

    /// Runs an init container to success; true when the next may start.
    fn init(&mut self, spec: &Spec) -> bool {
        match self.here(&spec.name).cloned() {
            Some(c) if c.state == ContainerState::Exited && c.exit_code == 0 => true,
            Some(c) if c.state == ContainerState::Running => false,
            _ => {
                self.start(ContainerKind::Init, spec);
                false
            }
        }
    }

    /// Keeps a container running as its policy says; true when it has started.
    fn keep_running(&mut self, kind: ContainerKind, spec: &Spec) -> bool {
        let Some(container) = self.here(&spec.name).cloned() else {
            self.start(kind, spec);
            return false;
        };
        if container.state != ContainerState::Running {
            self.start(kind, spec);
            return false;
        }
        if let Some(probe) = self.memory.condemned.get(&container.id).copied() {
            let reason = KillReason::ProbeFailed { probe, restarts: may_restart(self.pod, spec) };
            stop(&container, reason, probe_grace(self.pod, spec, probe), self.memory, self.plan);
        } else if container.image != spec.image.as_deref().unwrap_or_default() {
            stop(&container, KillReason::SpecChanged, grace_seconds(self.pod), self.memory, self.plan);
        }
        self.memory.started.contains(&container.id)
    }

    fn start(&mut self, kind: ContainerKind, spec: &Spec) {
        if self.memory.starting.contains(&spec.name) {
            return;
        }
        let latest = self.observed.latest(&spec.name);
        let mut crash = None;
        if let Some(old) = latest.filter(|c| c.state == ContainerState::Exited) {
            let same_sandbox = old.sandbox_id == self.sandbox_id;
            let counts = same_sandbox || kind == ContainerKind::Main;
            if counts && !restarts(self.pod, self.memory, kind, spec, old) {
                return;
            }
            // a restart of the whole pod was held back before, by the container that asked for it
            if old.reason != RESTARTING_ALL {
                if let Some(at) = crash_hold(self.memory, old).filter(|at| *at > self.now) {
                    self.plan.wake(at);
                    return;
                }
                let failed = old.finished.unwrap_or(old.created);
                crash = Some(Backoff::next(self.memory.crash.get(&spec.name).copied(), failed, self.now));
            }
        }
        if let Some(at) = self.memory.retry_at.get(&spec.name).filter(|at| **at > self.now) {
            self.plan.wake(*at);
            return;
        }
        let attempt = latest.map_or(0, |c| c.attempt + 1);
        let (name, sandbox_id) = (spec.name.clone(), self.sandbox_id.to_string());
        self.plan.actions.push(Action::Start { name, kind, attempt, sandbox_id, crash });
    }
}

/// A failed probe may have a grace period of its own; the end of the pod overrides it.
fn probe_grace(pod: &Pod, spec: &Spec, probe: ProbeKind) -> i64 {
    let own = match probe {
        ProbeKind::Startup => spec.startup_probe.as_ref(),
        ProbeKind::Liveness => spec.liveness_probe.as_ref(),
        ProbeKind::Readiness => None,
    };
    let own =
        own.and_then(|p| p.termination_grace_period_seconds).filter(|_| pod.metadata.deletion_timestamp.is_none());
    own.unwrap_or_else(|| grace_seconds(pod))
}

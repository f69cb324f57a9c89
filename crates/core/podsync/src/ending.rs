//! How containers end: one that is replaced, all for a restart of the pod, and the pod for good.

use crate::action::{Action, KillReason, Plan, WholeRestart};
use crate::restart::crash_hold;
use crate::{Backoff, Container, ContainerState, Memory, Observed, grace_seconds};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

/// Ends and removes all containers of the sandbox; the one that asked for it goes last, so that a restart of the node agent
/// finds it and goes on.
pub(crate) fn begin_anew(observed: &Observed, memory: &Memory, cause: &Container, now: Timestamp, plan: &mut Plan) {
    if let Some(at) = crash_hold(memory, cause).filter(|at| *at > now) {
        plan.wake(at);
        return;
    }
    plan.actions.retain(|action| !matches!(action, Action::RemoveContainer { .. }));
    let living: Vec<&Container> = observed.containers.iter().filter(|c| alive(c)).collect();
    for container in &living {
        stop(container, KillReason::AllRestart, 0, memory, plan);
    }
    if !living.is_empty() || !memory.starting.is_empty() {
        return;
    }
    let here: Vec<&Container> = observed.containers.iter().filter(|c| !c.sandbox_id.is_empty()).collect();
    let others = here.iter().filter(|c| c.id != cause.id);
    let mut due: Vec<(&Container, Option<Backoff>)> = others.map(|c| (*c, None)).collect();
    if due.is_empty() {
        let failed = cause.finished.unwrap_or(cause.created);
        due.push((cause, Some(Backoff::next(memory.crash.get(&cause.name).copied(), failed, now))));
    }
    for (container, crash) in due.into_iter().filter(|(c, _)| !memory.stopping.contains(&c.id)) {
        let restart = Some(WholeRestart { name: container.name.clone(), crash });
        plan.actions.push(Action::RemoveContainer { id: container.id.clone(), restart });
    }
}

/// Something that has to be stopped. A container that was made and never started holds no process.
pub(crate) fn alive(container: &Container) -> bool {
    matches!(container.state, ContainerState::Running | ContainerState::Unknown)
}

/// Ends all containers at once; a sidecar gets its SIGTERM after the main containers and the sidecars behind it have ended.
/// The sandbox goes last.
pub(crate) fn end_pod(pod: &Pod, observed: &Observed, memory: &Memory, plan: &mut Plan) {
    plan.wake_at = None;
    let Some(spec) = &pod.spec else { return };
    let place = |name: &str| spec.init_containers.iter().flatten().position(|c| c.name == name && crate::is_sidecar(c));
    let living: Vec<(&Container, Option<usize>)> =
        observed.containers.iter().filter(|c| alive(c)).map(|c| (c, place(&c.name))).collect();
    // a start under way will show up as a container or as a failure; wait for it before the sandbox goes
    let waiting = !memory.starting.is_empty() || !living.is_empty();
    for (container, own) in &living {
        if memory.stopping.contains(&container.id) {
            continue;
        }
        let before = living.iter().filter(|(_, other)| own.is_some() && (other.is_none() || other > own));
        plan.actions.push(Action::Stop {
            id: container.id.clone(),
            name: container.name.clone(),
            reason: KillReason::PodEnds,
            grace: memory.grace.unwrap_or_else(|| grace_seconds(pod)),
            after: before.map(|(c, _)| c.id.clone()).collect(),
        });
    }
    if waiting {
        return;
    }
    let mut left = false;
    for sandbox in observed.sandboxes.iter().filter(|s| s.ready) {
        left = true;
        if !memory.stopping.contains(&sandbox.id) {
            plan.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
        }
    }
    plan.ended = !left && memory.stopping.is_empty();
}

pub(crate) fn stop(container: &Container, reason: KillReason, grace: i64, memory: &Memory, plan: &mut Plan) {
    if !memory.stopping.contains(&container.id) {
        let (id, name) = (container.id.clone(), container.name.clone());
        plan.actions.push(Action::Stop { id, name, reason, grace, after: Vec::new() });
    }
}

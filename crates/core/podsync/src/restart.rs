//! Whether and when what has ended starts again: policies, rules of containers, delays, and the pod's deadline.

use crate::{Backoff, Container, ContainerKind, ContainerState, Memory, Observed, RESTARTING_ALL, all_containers};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Spec, ContainerRestartRule, Pod, PodSpec};

/// The action of a restart rule that begins the whole pod anew.
const RESTART_ALL: &str = "RestartAllContainers";

/// What the container's own rules say about this exit code: `Restart` or `RestartAllContainers`.
fn matching_rule(spec: &Spec, exit_code: i32) -> Option<&str> {
    spec.restart_policy.as_ref()?;
    let matches = |rule: &&ContainerRestartRule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let listed = codes.values.iter().flatten().any(|v| *v == exit_code);
        match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    spec.restart_policy_rules.iter().flatten().find(matches).map(|rule| rule.action.as_str())
}

/// Whether a container that ended with this code is started again.
pub(crate) fn should_restart(pod: &Pod, kind: ContainerKind, spec: &Spec, exit_code: i32) -> bool {
    if kind == ContainerKind::Ephemeral {
        return false;
    }
    if matches!(matching_rule(spec, exit_code), Some("Restart" | RESTART_ALL)) {
        return true;
    }
    let own = spec.restart_policy.as_deref();
    let policy = own.or(pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref())).unwrap_or("Always");
    match (kind, policy) {
        (ContainerKind::Sidecar, _) => true,
        // an init container has to succeed once, so Always means until it does
        (ContainerKind::Init, "Always") => exit_code != 0,
        (_, "Always") => true,
        (_, "OnFailure") => exit_code != 0,
        _ => false,
    }
}

/// Whether this ended container is started again: by its policy, or because it or the whole pod was to begin anew.
pub(crate) fn restarts(pod: &Pod, memory: &Memory, kind: ContainerKind, spec: &Spec, ended: &Container) -> bool {
    ended.reason == RESTARTING_ALL
        || memory.replaced.contains(&ended.id)
        || should_restart(pod, kind, spec, ended.exit_code)
}

/// Whether a failure of the container can lead to its restart at all.
pub(crate) fn may_restart(pod: &Pod, spec: &Spec) -> bool {
    if spec.restart_policy_rules.iter().flatten().any(|rule| rule.action == "Restart") {
        return true;
    }
    let policy = spec.restart_policy.as_deref().or(pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()));
    policy != Some("Never")
}

/// The container of the current sandbox whose end asks for the whole pod to begin anew.
pub(crate) fn whole_restart<'a>(pod: &Pod, observed: &'a Observed) -> Option<&'a Container> {
    let sandbox = observed.sandbox()?;
    all_containers(pod.spec.as_ref()?).find_map(|(_, spec)| {
        let latest = observed.latest(&spec.name)?;
        let asks = latest.state == ContainerState::Exited
            && latest.sandbox_id == sandbox.id
            && matching_rule(spec, latest.exit_code) == Some(RESTART_ALL);
        asks.then_some(latest)
    })
}

/// Whether some container has a rule that can restart the whole pod.
pub(crate) fn may_restart_whole(spec: &PodSpec) -> bool {
    all_containers(spec).any(|(_, c)| c.restart_policy_rules.iter().flatten().any(|rule| rule.action == RESTART_ALL))
}

/// Moment at which the pod's `activeDeadlineSeconds` ends it.
pub(crate) fn deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let start = pod.status.as_ref()?.start_time.as_ref()?.0;
    start.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// What a pod past its `activeDeadlineSeconds` is told.
pub const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// Whether the pod's `activeDeadlineSeconds` are over.
pub fn is_past_deadline(pod: &Pod, now: Timestamp) -> bool {
    deadline(pod).is_some_and(|at| now >= at)
}

/// When a container that ended may start again, if not at once.
pub(crate) fn crash_hold(memory: &Memory, container: &Container) -> Option<Timestamp> {
    let failed = container.finished.unwrap_or(container.created);
    Backoff::not_before(memory.crash.get(&container.name).copied(), failed)
}

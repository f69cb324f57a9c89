//! The conditions that a node sets in a pod's status, each with upstream's reason and message.

use crate::grant::{DEFERRED, RESIZE_IN_PROGRESS, RESIZE_PENDING};
use crate::restart::{may_restart_whole, whole_restart};
use crate::status::has_begun;
use crate::{Memory, Observed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The condition of a pod with a rule that restarts all its containers.
const RESTARTING: &str = "AllContainersRestarting";

/// A condition's value, reason and message.
#[derive(Clone)]
struct Finding {
    yes: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

const YES: Finding = Finding { yes: true, reason: None, message: None };

fn plain(yes: bool) -> Finding {
    Finding { yes, ..YES }
}

fn because(yes: bool, reason: &'static str, message: impl Into<Option<String>>) -> Finding {
    Finding { yes, reason: Some(reason), message: message.into() }
}

fn names(list: &[&ContainerStatus]) -> String {
    list.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(" ")
}

/// Sets the node's conditions in `status`; those of others in it are kept.
pub(crate) fn set(
    status: &mut PodStatus,
    pod: &Pod,
    observed: &Observed,
    memory: &Memory,
    resizing: bool,
    now: Timestamp,
) {
    let Some(spec) = &pod.spec else { return };
    let old = status.conditions.take().unwrap_or_default();
    let containers = containers_ready(status, spec);
    let mut found = vec![
        ("PodReadyToStartContainers", plain(observed.sandbox().is_some_and(|s| s.ready))),
        ("Initialized", initialized(status, spec, &old)),
        ("Ready", ready(&containers, spec, &old)),
        ("ContainersReady", containers),
        ("PodScheduled", YES),
    ];
    if let Some(message) = &memory.disruption {
        found.push(("DisruptionTarget", because(true, "TerminationByKubelet", message.clone())));
    }
    if may_restart_whole(spec) {
        found.push((RESTARTING, restarting(status, pod, observed)));
    }
    if resizing {
        let error = memory.resize_error.as_ref();
        found.push((RESIZE_IN_PROGRESS, error.map_or(YES, |text| because(true, "Error", text.clone()))));
    }
    if let Some(pending) = &memory.resize_pending {
        found.push((RESIZE_PENDING, because(true, DEFERRED, pending.message.clone())));
    }
    let second = || Timestamp::from_second(now.as_second()).ok().map(Time);
    let mut all: Vec<PodCondition> = Vec::new();
    for (kind, finding) in found {
        let value = if finding.yes { "True" } else { "False" };
        let before = old.iter().find(|c| c.type_ == kind);
        let unchanged = before.filter(|c| c.status == value).and_then(|c| c.last_transition_time.clone());
        all.push(PodCondition {
            type_: kind.to_string(),
            status: value.to_string(),
            reason: finding.reason.map(str::to_string),
            message: finding.message,
            observed_generation: match kind {
                RESIZE_IN_PROGRESS => memory.resize_generation.or(pod.metadata.generation),
                _ => pod.metadata.generation,
            },
            last_transition_time: unchanged.or_else(second),
            ..Default::default()
        });
    }
    let foreign: Vec<PodCondition> = old
        .into_iter()
        .filter(|c| {
            ![RESIZE_IN_PROGRESS, RESIZE_PENDING].contains(&c.type_.as_str())
                && !all.iter().any(|own| own.type_ == c.type_)
        })
        .collect();
    all.extend(foreign);
    status.conditions = Some(all);
}

fn initialized(status: &PodStatus, spec: &PodSpec, old: &[PodCondition]) -> Finding {
    if status.phase.as_deref() == Some("Succeeded") {
        return because(true, "PodCompleted", None);
    }
    // who has been initialized stays so, whatever starts again later
    let held = old.iter().any(|c| c.type_ == "Initialized" && c.status == "True");
    if held || has_begun(status.container_statuses.as_deref().unwrap_or_default()) {
        return YES;
    }
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let incomplete = spec.init_containers.iter().flatten().zip(init).filter(|(container, status)| {
        if crate::is_sidecar(container) { status.started != Some(true) } else { !status.ready }
    });
    let incomplete: Vec<&ContainerStatus> = incomplete.map(|(_, status)| status).collect();
    if incomplete.is_empty() {
        return YES;
    }
    let text = format!("containers with incomplete status: [{}]", names(&incomplete));
    because(false, "ContainersNotInitialized", text)
}

fn containers_ready(status: &PodStatus, spec: &PodSpec) -> Finding {
    match status.phase.as_deref() {
        Some("Succeeded") => return because(false, "PodCompleted", None),
        Some("Failed") => return because(false, "PodFailed", None),
        _ => {}
    }
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let pairs = spec.init_containers.iter().flatten().zip(init);
    let sidecars = pairs.filter(|(container, _)| crate::is_sidecar(container)).map(|(_, status)| status);
    let main = status.container_statuses.as_deref().unwrap_or_default();
    let unready: Vec<&ContainerStatus> = sidecars.chain(main).filter(|s| !s.ready).collect();
    if unready.is_empty() {
        return YES;
    }
    because(false, "ContainersNotReady", format!("containers with unready status: [{}]", names(&unready)))
}

/// Readiness of the containers and of the pod's readiness gates.
fn ready(containers: &Finding, spec: &PodSpec, old: &[PodCondition]) -> Finding {
    if !containers.yes {
        return containers.clone();
    }
    let mut missing = Vec::new();
    for gate in spec.readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match old.iter().find(|c| c.type_ == *kind) {
            None => {
                missing.push(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist."));
            }
            Some(c) if c.status != "True" => {
                missing.push(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but {}", c.status));
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() { YES } else { because(false, "ReadinessGatesNotReady", missing.join(", ")) }
}

fn restarting(status: &PodStatus, pod: &Pod, observed: &Observed) -> Finding {
    match status.phase.as_deref() {
        Some("Succeeded") => because(false, "PodCompleted", None),
        Some("Failed") => because(false, "PodFailed", None),
        _ if whole_restart(pod, observed).is_some() => {
            because(true, "RestartAllContainersStarted", "container exited with restart policy rule".to_string())
        }
        _ => plain(false),
    }
}

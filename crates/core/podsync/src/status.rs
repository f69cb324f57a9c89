//! The status of a pod: phase, conditions, addresses and container statuses.

use crate::plan::{deadline, should_restart};
use crate::status_container::container_status;
use crate::{ContainerKind, ContainerState, Memory, Observed, all_containers, qos_class};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The condition of a pod whose containers do not all run with the resources it asks for.
const RESIZING: &str = "PodResizeInProgress";

/// Facts of the node that every pod status repeats.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    /// The node's addresses, first is primary.
    pub host_ips: Vec<String>,
}

/// Whether all work of the pod is done, by its containers and restart policy alone.
pub fn pod_is_finished(pod: &Pod, observed: &Observed) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ended_for_good = |kind, c: &k8s_openapi::api::core::v1::Container| {
        observed
            .latest(&c.name)
            .is_some_and(|o| o.state == ContainerState::Exited && !should_restart(pod, kind, c, o.exit_code))
    };
    let init_failed = all_containers(spec).any(|(kind, c)| {
        kind == ContainerKind::Init
            && ended_for_good(kind, c)
            && observed.latest(&c.name).is_some_and(|o| o.exit_code != 0)
    });
    init_failed || spec.containers.iter().all(|c| ended_for_good(ContainerKind::Main, c))
}

/// Builds the pod's status. `pod.status` is what the API holds; conditions of others in it are kept.
pub fn status(pod: &Pod, observed: &Observed, memory: &Memory, pins: &Pins, now: Timestamp) -> PodStatus {
    let mut status = pod.status.clone().unwrap_or_default();
    let Some(spec) = &pod.spec else { return status };
    let past_deadline = deadline(pod).is_some_and(|at| now >= at);
    let api_terminal = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
    let ending = pod.metadata.deletion_timestamp.is_some() || memory.terminate || memory.failed.is_some();
    let ending = ending || past_deadline || api_terminal || pod_is_finished(pod, observed);

    let old_of =
        |list: &Option<Vec<ContainerStatus>>, name: &str| list.iter().flatten().find(|s| s.name == name).cloned();
    let (mut init, mut main) = (Vec::new(), Vec::new());
    for (kind, container) in all_containers(spec) {
        let list =
            if kind == ContainerKind::Main { &status.container_statuses } else { &status.init_container_statuses };
        let old = old_of(list, &container.name);
        let built = container_status(pod, kind, container, observed, memory, old.as_ref(), ending, now);
        if kind == ContainerKind::Main { main.push(built) } else { init.push(built) }
    }
    let debug: Vec<ContainerStatus> = crate::ephemeral_containers(spec)
        .map(|container| {
            let old = old_of(&status.ephemeral_container_statuses, &container.name);
            let kind = ContainerKind::Ephemeral;
            container_status(pod, kind, &container, observed, memory, old.as_ref(), ending, now)
        })
        .collect();
    let alive =
        observed.containers.iter().any(|c| matches!(c.state, ContainerState::Running | ContainerState::Unknown));
    let wound_up = ending && !alive && memory.starting.is_empty();
    if !api_terminal {
        let natural = phase(pod, &init, &main);
        let forced = memory.failed.is_some() || past_deadline;
        let phase = match natural {
            _ if forced && wound_up => "Failed",
            "Succeeded" | "Failed" if alive => "Running",
            "Succeeded" | "Failed" => natural,
            _ if wound_up => final_phase(&main),
            other => other,
        };
        status.phase = Some(phase.to_string());
        if let Some(failed) = &memory.failed {
            (status.reason, status.message) = (Some(failed.reason.clone()), Some(failed.message.clone()));
        } else if past_deadline {
            status.reason = Some("DeadlineExceeded".into());
            status.message = Some("Pod was active on the node longer than the specified deadline".into());
        }
    }
    status.container_statuses = Some(main);
    status.init_container_statuses = (!init.is_empty()).then_some(init);
    status.ephemeral_container_statuses = (!debug.is_empty()).then_some(debug);
    status.start_time = status.start_time.take().or_else(|| Timestamp::from_second(now.as_second()).ok().map(Time));
    status.qos_class = Some(qos_class(pod).as_str().to_string());
    status.observed_generation = pod.metadata.generation;
    addresses(&mut status, pod, observed, pins);
    let resizing = !crate::resizes(pod, observed, memory).is_empty();
    conditions(&mut status, pod, observed, resizing, now);
    status
}

fn addresses(status: &mut PodStatus, pod: &Pod, observed: &Observed, pins: &Pins) {
    status.host_ip = pins.host_ips.first().cloned();
    status.host_ips = Some(pins.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let host_network = pod.spec.as_ref().is_some_and(crate::is_host_network);
    let ips: Vec<String> = match observed.sandbox().filter(|s| s.ready) {
        Some(_) if host_network => pins.host_ips.clone(),
        Some(sandbox) => sandbox.ips.clone(),
        None => return,
    };
    if let Some(first) = ips.first() {
        status.pod_ip = Some(first.clone());
        status.pod_ips = Some(ips.into_iter().map(|ip| PodIP { ip }).collect());
    }
}

/// Phase when the node has ended the pod: by how the containers ended.
fn final_phase(main: &[ContainerStatus]) -> &'static str {
    let exit = |s: &ContainerStatus| s.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
    if main.iter().all(|s| exit(s) == Some(0)) { "Succeeded" } else { "Failed" }
}

fn phase(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus]) -> &'static str {
    let Some(spec) = &pod.spec else { return "Pending" };
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let ended = |s: &ContainerStatus| {
        let state = s.state.as_ref().and_then(|s| s.terminated.as_ref());
        let last = s.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        state.or_else(|| last.filter(|_| s.state.as_ref().is_some_and(|s| s.waiting.is_some()))).map(|t| t.exit_code)
    };
    let is_running = |s: &ContainerStatus| s.state.as_ref().is_some_and(|s| s.running.is_some());
    for (container, status) in spec.init_containers.iter().flatten().zip(init) {
        if crate::is_sidecar(container) {
            if !is_running(status) && ended(status).is_none() {
                return "Pending";
            }
            continue;
        }
        let done = status.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
        match done {
            Some(0) => {}
            Some(code) if !should_restart(pod, ContainerKind::Init, container, code) => return "Failed",
            _ => return "Pending",
        }
    }
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for status in main {
        match ended(status) {
            _ if is_running(status) => running += 1,
            Some(0) => {
                stopped += 1;
                succeeded += 1;
            }
            Some(_) => stopped += 1,
            None => waiting += 1,
        }
    }
    let restarts = spec.containers.iter().zip(main).any(|(container, status)| {
        ended(status).is_some_and(|code| should_restart(pod, ContainerKind::Main, container, code))
    });
    match () {
        _ if waiting > 0 => "Pending",
        _ if running > 0 => "Running",
        _ if stopped == 0 => "Pending",
        _ if restarts || policy == "Always" => "Running",
        _ if stopped == succeeded => "Succeeded",
        _ => "Failed",
    }
}

fn names(list: &[&ContainerStatus]) -> String {
    list.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(" ")
}

fn conditions(status: &mut PodStatus, pod: &Pod, observed: &Observed, resizing: bool, now: Timestamp) {
    let Some(spec) = &pod.spec else { return };
    let phase = status.phase.clone().unwrap_or_default();
    let main = status.container_statuses.clone().unwrap_or_default();
    let init = status.init_container_statuses.clone().unwrap_or_default();
    let sandbox = observed.sandbox().is_some_and(|s| s.ready);

    let began = main.iter().any(|s| s.container_id.is_some());
    let pending_init: Vec<&ContainerStatus> = spec
        .init_containers
        .iter()
        .flatten()
        .zip(&init)
        .filter_map(|(c, s)| {
            let complete = if crate::is_sidecar(c) { s.started == Some(true) } else { s.ready };
            (!complete && !began).then_some(s)
        })
        .collect();
    let initialized = match phase.as_str() {
        "Succeeded" => (true, Some("PodCompleted"), None),
        _ if pending_init.is_empty() => (true, None, None),
        _ => {
            let text = format!("containers with incomplete status: [{}]", names(&pending_init));
            (false, Some("ContainersNotInitialized"), Some(text))
        }
    };

    let sidecars =
        spec.init_containers.iter().flatten().zip(&init).filter(|(c, _)| crate::is_sidecar(c)).map(|(_, s)| s);
    let unready: Vec<&ContainerStatus> = sidecars.chain(&main).filter(|s| !s.ready).collect();
    let containers = match phase.as_str() {
        "Succeeded" => (false, Some("PodCompleted"), None),
        "Failed" => (false, Some("PodFailed"), None),
        _ if unready.is_empty() => (true, None, None),
        _ => {
            let text = format!("containers with unready status: [{}]", names(&unready));
            (false, Some("ContainersNotReady"), Some(text))
        }
    };

    let old = status.conditions.clone().unwrap_or_default();
    let mut missing = Vec::new();
    for gate in spec.readiness_gates.iter().flatten() {
        let found = old.iter().find(|c| c.type_ == gate.condition_type);
        match found {
            None => missing.push(format!(
                "corresponding condition of pod readiness gate \"{}\" does not exist.",
                gate.condition_type
            )),
            Some(c) if c.status != "True" => missing.push(format!(
                "the status of pod readiness gate \"{}\" is not \"True\", but {}",
                gate.condition_type, c.status
            )),
            Some(_) => {}
        }
    }
    let ready = match &containers {
        (true, ..) if !missing.is_empty() => (false, Some("ReadinessGatesNotReady"), Some(missing.join(", "))),
        other => other.clone(),
    };

    let generation = pod.metadata.generation;
    let mut set = Vec::new();
    let mut push = |kind: &str, (yes, reason, message): (bool, Option<&str>, Option<String>)| {
        let value = if yes { "True" } else { "False" };
        let before = old.iter().find(|c| c.type_ == kind);
        let unchanged = before.filter(|c| c.status == value).and_then(|c| c.last_transition_time.clone());
        set.push(PodCondition {
            type_: kind.to_string(),
            status: value.to_string(),
            reason: reason.map(str::to_string),
            message,
            observed_generation: generation,
            last_transition_time: unchanged.or_else(|| Timestamp::from_second(now.as_second()).ok().map(Time)),
            ..Default::default()
        });
    };
    push("PodReadyToStartContainers", (sandbox, None, None));
    push("Initialized", initialized);
    push("Ready", ready);
    push("ContainersReady", containers);
    push("PodScheduled", (true, None, None));
    if resizing {
        push(RESIZING, (true, None, None));
    }
    let foreign =
        old.into_iter().filter(|c| c.type_ != RESIZING && !set.iter().any(|s: &PodCondition| s.type_ == c.type_));
    let foreign: Vec<PodCondition> = foreign.collect();
    set.extend(foreign);
    status.conditions = Some(set);
}

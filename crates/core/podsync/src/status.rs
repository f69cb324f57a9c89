//! The status of a pod: phase, conditions, addresses and container statuses.

use crate::conditions;
use crate::restart::{DEADLINE_MESSAGE, is_past_deadline, restarts, should_restart};
use crate::status_container::container_status;
use crate::whole::{pod_requests, pod_resources};
use crate::{ContainerKind, ContainerState, Memory, Observed, RESTARTING_ALL, Waiting, all_containers, qos_class};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Facts of the node that every pod status repeats.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    /// The node's addresses, first is primary.
    pub host_ips: Vec<String>,
}

/// Whether all work of the pod is done, by its containers and restart policy alone.
pub fn pod_is_finished(pod: &Pod, observed: &Observed, memory: &Memory) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ended_for_good = |kind, c: &k8s_openapi::api::core::v1::Container| {
        observed
            .latest(&c.name)
            .is_some_and(|o| o.state == ContainerState::Exited && !restarts(pod, memory, kind, c, o))
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
    if let Some(refusal) = memory.failed.as_ref().filter(|_| memory.disruption.is_none() && observed.is_empty()) {
        return refused(pod, status, refusal);
    }
    let past_deadline = is_past_deadline(pod, now);
    let api_terminal = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
    if api_terminal && observed.is_empty() {
        // it was refused by an earlier process, or nothing is left that could tell more
        return status;
    }
    let ending = pod.metadata.deletion_timestamp.is_some() || memory.terminate || memory.failed.is_some();
    let ending = ending || past_deadline || api_terminal || pod_is_finished(pod, observed, memory);

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
        let natural = phase(pod, memory, &init, &main);
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
            status.message = Some(DEADLINE_MESSAGE.into());
        }
    }
    status.container_statuses = Some(main);
    status.init_container_statuses = (!init.is_empty()).then_some(init);
    status.ephemeral_container_statuses = (!debug.is_empty()).then_some(debug);
    status.start_time = status.start_time.take().or_else(|| Timestamp::from_second(now.as_second()).ok().map(Time));
    status.qos_class = Some(qos_class(pod).as_str().to_string());
    status.observed_generation = pod.metadata.generation;
    addresses(&mut status, pod, observed, pins);
    let resizing = crate::is_resizing(pod, observed, memory);
    status.allocated_resources = Some(pod_requests(spec)).filter(|requests| !requests.is_empty());
    if !resizing || status.resources.is_none() {
        status.resources = Some(pod_resources(spec)).filter(|has| has.requests.is_some() || has.limits.is_some());
    }
    conditions::set(&mut status, pod, observed, memory, resizing, now);
    status
}

/// The status of a pod of which nothing was ever made.
fn refused(pod: &Pod, held: PodStatus, refusal: &Waiting) -> PodStatus {
    PodStatus {
        phase: Some("Failed".into()),
        reason: Some(refusal.reason.clone()),
        message: Some(refusal.message.clone()),
        qos_class: Some(qos_class(pod).as_str().to_string()),
        observed_generation: pod.metadata.generation,
        ..held
    }
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

/// How a container last ended, also while it waits for its next start.
fn ended(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let state = status.state.as_ref()?;
    let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    state.terminated.as_ref().or(last.filter(|_| state.waiting.is_some()))
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

fn starts_again(
    pod: &Pod,
    memory: &Memory,
    kind: ContainerKind,
    spec: &Container,
    ended: &ContainerStateTerminated,
) -> bool {
    let id = ended.container_id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| id);
    ended.reason.as_deref() == Some(RESTARTING_ALL)
        || id.is_some_and(|id| memory.replaced.contains(id))
        || should_restart(pod, kind, spec, ended.exit_code)
}

/// Whether a main container has ever run, so that the pod cannot fall back to Pending.
pub(crate) fn has_begun(main: &[ContainerStatus]) -> bool {
    main.iter().any(|s| is_running(s) || ended(s).is_some())
}

fn phase(pod: &Pod, memory: &Memory, init: &[ContainerStatus], main: &[ContainerStatus]) -> &'static str {
    let Some(spec) = &pod.spec else { return "Pending" };
    let begun = has_begun(main);
    let (mut running, mut waiting) = (0, 0);
    let mut pending = false;
    for (container, status) in spec.init_containers.iter().flatten().zip(init) {
        let last = ended(status);
        if crate::is_sidecar(container) {
            running += u32::from(is_running(status));
            let began = if is_running(status) { status.started == Some(true) } else { last.is_some() };
            pending |= !began && !begun;
            waiting += u32::from(!is_running(status) && last.is_none());
            continue;
        }
        match last {
            Some(end) if end.exit_code != 0 && !starts_again(pod, memory, ContainerKind::Init, container, end) => {
                return "Failed";
            }
            Some(_) => {}
            None => pending = true,
        }
    }
    let (mut stopped, mut for_good, mut succeeded) = (0, 0, 0);
    for (container, status) in spec.containers.iter().zip(main) {
        match ended(status) {
            _ if is_running(status) => running += 1,
            Some(end) => {
                stopped += 1;
                for_good += u32::from(!starts_again(pod, memory, ContainerKind::Main, container, end));
                let waits = status.state.as_ref().is_some_and(|s| s.waiting.is_some());
                succeeded += u32::from(end.exit_code == 0 && !waits);
            }
            None => waiting += 1,
        }
    }
    match () {
        () if pending || waiting > 0 => "Pending",
        () if running > 0 => "Running",
        () if stopped == 0 => "Pending",
        () if for_good < stopped => "Running",
        () if stopped == succeeded => "Succeeded",
        () => "Failed",
    }
}

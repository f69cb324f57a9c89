//! The status of one container as the API shows it.

use crate::RESTARTING_ALL;
use crate::resize::runs_with;
use crate::resources::inherit;
use crate::restart::{crash_hold, restarts};
use crate::{Container, ContainerKind, ContainerState as Life, Memory, Observed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, Pod, ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let message = (!message.is_empty()).then(|| message.to_string());
    let waiting = ContainerStateWaiting { reason: Some(reason.to_string()), message };
    ContainerState { waiting: Some(waiting), ..Default::default() }
}

/// The terminated state of a dead container.
pub(crate) fn terminated(container: &Container) -> ContainerState {
    let started = container.started.unwrap_or(container.created);
    let finished = container.finished.unwrap_or(started).max(started);
    let reason = match (container.reason.as_str(), container.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let ended = ContainerStateTerminated {
        container_id: (!container.id.is_empty()).then(|| format!("containerd://{}", container.id)),
        exit_code: container.exit_code,
        started_at: Some(seconds(started)),
        finished_at: Some(seconds(finished)),
        reason: Some(reason.to_string()),
        message: (!container.message.is_empty()).then(|| container.message.clone()),
        signal: None,
    };
    ContainerState { terminated: Some(ended), ..Default::default() }
}

/// Message of a container that waits for its next restart.
fn crash_message(pod: &Pod, memory: &Memory, name: &str) -> String {
    let delay = memory.crash.get(name).map_or(10, |b| b.delay.as_secs());
    let text = match (delay / 60, delay % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    };
    let meta = &pod.metadata;
    let (pod_name, ns) = (meta.name.as_deref().unwrap_or(""), meta.namespace.as_deref().unwrap_or(""));
    let uid = meta.uid.as_deref().unwrap_or("");
    format!("back-off {text} restarting failed container={name} pod={pod_name}_{ns}({uid})")
}

/// Builds the status of the container `spec`.
pub(crate) fn container_status(
    pod: &Pod,
    kind: ContainerKind,
    spec: &Spec,
    observed: &Observed,
    memory: &Memory,
    old: Option<&ContainerStatus>,
    ending: bool,
    now: Timestamp,
) -> ContainerStatus {
    let latest = observed.latest(&spec.name);
    let previous = latest.and_then(|l| {
        let before = observed.containers.iter().filter(|c| c.name == l.name && c.attempt < l.attempt);
        before.filter(|c| c.state == Life::Exited).max_by_key(|c| c.attempt)
    });
    let mut last_state = previous.map(terminated).or_else(|| {
        // the runtime may have lost the dead container that the API still shows
        let same = |s: &&ContainerStatus| latest.is_some_and(|l| i64::from(s.restart_count) == i64::from(l.attempt));
        old.filter(same).and_then(|s| s.last_state.clone())
    });
    let blocked = memory.waiting.get(&spec.name);
    let has_init = pod.spec.as_ref().is_some_and(|s| s.init_containers.iter().flatten().next().is_some());
    let default_reason =
        if has_init && kind != ContainerKind::Ephemeral { "PodInitializing" } else { "ContainerCreating" };
    let state = match latest {
        None => match blocked {
            Some(w) => waiting(&w.reason, &w.message),
            None => waiting(default_reason, ""),
        },
        Some(c) if c.state == Life::Running => {
            let started_at = c.started.map(seconds);
            ContainerState { running: Some(ContainerStateRunning { started_at }), ..Default::default() }
        }
        Some(c) if c.state == Life::Created => match blocked {
            Some(w) => waiting(&w.reason, &w.message),
            None => waiting("ContainerCreating", ""),
        },
        Some(c) => {
            let restart = !ending && restarts(pod, memory, kind, spec, c);
            let held = crash_hold(memory, c).is_some_and(|at| at > now);
            // a container that cannot be started waits like one that crashes
            let crashing =
                blocked.is_none_or(|w| matches!(w.reason.as_str(), "RunContainerError" | "PostStartHookError"));
            match blocked {
                None if restart && c.reason == RESTARTING_ALL => {
                    last_state = Some(terminated(c));
                    waiting(RESTARTING_ALL, &c.message)
                }
                Some(w) if restart && !(held && crashing) => {
                    last_state = Some(terminated(c));
                    waiting(&w.reason, &w.message)
                }
                _ if restart && held => {
                    last_state = Some(terminated(c));
                    waiting("CrashLoopBackOff", &crash_message(pod, memory, &spec.name))
                }
                _ => terminated(c),
            }
        }
    };
    let running = latest.filter(|_| state.running.is_some());
    let started = running.is_some_and(|c| memory.started.contains(&c.id));
    let probe_ready = running.is_some_and(|c| match memory.ready.get(&c.id) {
        Some(ready) => *ready,
        None => spec.readiness_probe.is_none(),
    });
    let ready = match kind {
        ContainerKind::Init => state.terminated.as_ref().is_some_and(|t| t.exit_code == 0),
        ContainerKind::Ephemeral => false,
        _ => started && probe_ready,
    };
    ContainerStatus {
        name: spec.name.clone(),
        ready,
        started: (kind != ContainerKind::Ephemeral).then_some(started),
        restart_count: latest.map_or(0, |c| i32::try_from(c.attempt).unwrap_or(i32::MAX)),
        image: spec.image.clone().unwrap_or_default(),
        image_id: latest.map(|c| c.image_id.clone()).unwrap_or_default(),
        container_id: latest.filter(|c| !c.id.is_empty()).map(|c| format!("containerd://{}", c.id)),
        allocated_resources: latest.and_then(|_| spec.resources.as_ref()?.requests.clone()),
        resources: latest.map(|_| resources(pod, spec, running, memory)),
        volume_mounts: volume_mounts(spec),
        stop_signal: latest.and_then(|_| spec.lifecycle.as_ref()?.stop_signal.clone()),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        ..Default::default()
    }
}

/// A resize shows once the container runs with it; one that does not run will start with what it was granted. Limits
/// that a container inherits from its pod are the pod's to show.
fn resources(pod: &Pod, spec: &Spec, running: Option<&Container>, memory: &Memory) -> ResourceRequirements {
    let granted = spec.resources.clone().unwrap_or_default();
    let wanted = inherit(pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()), &granted);
    let has = running.and_then(|c| memory.resources.get(&c.id)).filter(|has| !runs_with(has, &wanted));
    let Some(mut has) = has.cloned() else { return granted };
    let own = granted.limits.unwrap_or_default();
    if let Some(limits) = &mut has.limits {
        limits.retain(|name, _| own.contains_key(name));
    }
    has.limits = has.limits.filter(|limits| !limits.is_empty());
    has
}

fn volume_mounts(spec: &Spec) -> Option<Vec<VolumeMountStatus>> {
    let mounts = spec.volume_mounts.as_ref()?;
    let status = |m: &k8s_openapi::api::core::v1::VolumeMount| {
        let recursive = m.read_only.filter(|r| *r).map(|_| "Disabled".to_string());
        VolumeMountStatus {
            name: m.name.clone(),
            mount_path: m.mount_path.clone(),
            read_only: m.read_only,
            recursive_read_only: recursive,
            ..Default::default()
        }
    };
    Some(mounts.iter().map(status).collect())
}

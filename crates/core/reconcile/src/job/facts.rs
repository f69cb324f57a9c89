//! What a Job's controller has to know of a pod beyond the view that all controllers share.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
pub const IGNORED_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// Kept of pods that a Job controls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobFacts {
    /// The completion index that the pod's annotation states.
    pub index: Option<i64>,
    /// Failures of earlier pods of this index, counted and ignored ones.
    pub failures: i32,
    pub ignored_failures: i32,
    /// When the pod ended, as well as it can be known.
    pub finished: Option<Timestamp>,
    /// Containers that ended with another code than 0: name and code; init containers last.
    pub exits: Vec<(String, i32)>,
    /// Type and status of the pod's conditions.
    pub conditions: Vec<(String, String)>,
    /// Restarts of all its containers.
    pub restarts: i32,
}

impl JobFacts {
    pub fn of(pod: &Pod) -> Self {
        let annotation = |name: &str| pod.metadata.annotations.as_ref()?.get(name)?.parse::<i64>().ok();
        let count = |name: &str| annotation(name).and_then(|n| i32::try_from(n).ok()).map_or(0, |n| n.max(0));
        let status = pod.status.as_ref();
        let containers = || status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
        let inits = || status.and_then(|status| status.init_container_statuses.as_ref()).into_iter().flatten();
        let exit = |container: &ContainerStatus| {
            let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
            (code != 0).then(|| (container.name.clone(), code))
        };
        let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        Self {
            index: annotation(COMPLETION_INDEX).filter(|index| *index >= 0),
            failures: count(FAILURE_COUNT),
            ignored_failures: count(IGNORED_FAILURE_COUNT),
            finished: finished(pod),
            exits: containers().chain(inits()).filter_map(exit).collect(),
            conditions: conditions.map(|c| (c.type_.clone(), c.status.clone())).collect(),
            restarts: containers().chain(inits()).map(|container| container.restart_count).sum(),
        }
    }
}

/// The end of the last container; else when the pod ceased to be ready; else when it was told to end; else its
/// creation.
fn finished(pod: &Pod) -> Option<Timestamp> {
    containers_finished(pod).or_else(|| ready_ended(pod)).or_else(|| deleted(pod)).or_else(|| {
        let created = pod.metadata.creation_timestamp.as_ref();
        created.map(|time| time.0)
    })
}

fn containers_finished(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let sidecars: Vec<&str> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten())
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    let inits = status.init_container_statuses.iter().flatten();
    let inits = inits.filter(|container| sidecars.contains(&container.name.as_str()));
    let mut last = None;
    for container in status.container_statuses.iter().flatten().chain(inits) {
        let ended = container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0;
        last = last.max(Some(ended));
    }
    last
}

fn ready_ended(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "False")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

fn deleted(pod: &Pod) -> Option<Timestamp> {
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    let end = pod.metadata.deletion_timestamp.as_ref()?.0;
    end.checked_sub(SignedDuration::from_secs(grace)).ok()
}

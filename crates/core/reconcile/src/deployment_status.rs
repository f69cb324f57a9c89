//! What a Deployment reports of itself: counts, Available, Progressing and ReplicaFailure.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};

use crate::conditions::{deployment_condition, set_deployment_condition};
use crate::deployment::{Rollout, Set};
use crate::plan::{DEPLOYMENTS, Op, Plan, difference};

const PROGRESSING: &str = "Progressing";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

fn deadline(rollout: &Rollout<'_>) -> Option<i32> {
    rollout.spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)
}

/// Whether the status as last written says that the rollout is done.
pub(crate) fn is_complete(rollout: &Rollout<'_>) -> bool {
    rollout.deployment.status.as_ref().is_some_and(|status| complete(rollout, status))
}

fn complete(rollout: &Rollout<'_>, status: &DeploymentStatus) -> bool {
    let all = [status.updated_replicas, status.replicas, status.available_replicas];
    all.iter().all(|count| count.unwrap_or(0) == rollout.replicas)
        && status.observed_generation >= rollout.deployment.metadata.generation
}

/// The status right after a new ReplicaSet was asked for.
pub(crate) fn created(rollout: &Rollout<'_>, name: &str, plan: &mut Plan) {
    if deadline(rollout).is_none() {
        return;
    }
    let old = rollout.deployment.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let message = format!("Created new replica set {name:?}");
    let condition = deployment_condition(PROGRESSING, "True", "NewReplicaSetCreated", message, rollout.now);
    set_deployment_condition(&mut conditions, condition);
    // None of its pods exists yet: the first one then counts as progress.
    let new = DeploymentStatus { conditions: Some(conditions), updated_replicas: None, ..old.clone() };
    write(rollout, &old, new, plan);
}

/// Brings the status up to date; `estimate` says whether progress is judged (not while paused or being resized).
pub(crate) fn sync(rollout: &Rollout<'_>, owned: &[Set], current: Option<usize>, estimate: bool, plan: &mut Plan) {
    let old = rollout.deployment.status.clone().unwrap_or_default();
    let mut new = observed(rollout, owned, current, &old);
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let enough = new.available_replicas.unwrap_or(0) >= rollout.replicas - rollout.unavailable;
    let (status, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    let available = deployment_condition("Available", status, reason, message.to_owned(), rollout.now);
    set_deployment_condition(&mut conditions, available);
    note_pause(rollout, &mut conditions);
    if deadline(rollout).is_none() {
        conditions.retain(|condition| condition.type_ != PROGRESSING);
    } else if estimate {
        let name = current.map(|current| owned[current].name());
        judge_progress(rollout, &old, &new, name, &mut conditions, plan);
    }
    if estimate {
        carry_failure(owned, current, &mut conditions);
    }
    new.conditions = (!conditions.is_empty()).then_some(conditions);
    write(rollout, &old, new, plan);
}

fn observed(rollout: &Rollout<'_>, owned: &[Set], current: Option<usize>, old: &DeploymentStatus) -> DeploymentStatus {
    let non_zero = |number: i32| (number > 0).then_some(number);
    let statuses = || owned.iter().filter_map(|set| set.object.status.as_ref());
    let available: i32 = statuses().filter_map(|status| status.available_replicas).sum();
    let sizes: i32 = owned.iter().map(|set| set.replicas).sum();
    let updated = current.and_then(|current| owned[current].object.status.as_ref()).map_or(0, |s| s.replicas);
    let terminating: Option<Vec<i32>> =
        owned.iter().map(|set| set.object.status.as_ref()?.terminating_replicas).collect();
    DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation.or(old.observed_generation),
        replicas: non_zero(statuses().map(|status| status.replicas).sum()),
        updated_replicas: non_zero(updated),
        ready_replicas: non_zero(statuses().filter_map(|status| status.ready_replicas).sum()),
        available_replicas: non_zero(available),
        unavailable_replicas: non_zero(sizes - available),
        terminating_replicas: terminating.map(|counts| counts.iter().sum()),
        collision_count: old.collision_count,
        conditions: None,
    }
}

/// Pausing and resuming restart the progress clock, so that time spent paused is not held against the rollout.
fn note_pause(rollout: &Rollout<'_>, conditions: &mut Vec<DeploymentCondition>) {
    if deadline(rollout).is_none() {
        return;
    }
    let paused = rollout.spec.paused.unwrap_or(false);
    let reason = conditions.iter().find(|c| c.type_ == PROGRESSING).and_then(|c| c.reason.clone());
    let was_paused = reason.as_deref() == Some(PAUSED);
    if reason.as_deref() == Some(TIMED_OUT) || paused == was_paused {
        return;
    }
    let (reason, message) = if paused { (PAUSED, "Deployment is paused") } else { (RESUMED, "Deployment is resumed") };
    set_deployment_condition(
        conditions,
        deployment_condition(PROGRESSING, "Unknown", reason, message.to_owned(), rollout.now),
    );
}

fn judge_progress(
    rollout: &Rollout<'_>,
    old: &DeploymentStatus,
    new: &DeploymentStatus,
    set: Option<&str>,
    conditions: &mut Vec<DeploymentCondition>,
    plan: &mut Plan,
) {
    let known = conditions.iter().find(|condition| condition.type_ == PROGRESSING).cloned();
    let reason = known.as_ref().and_then(|known| known.reason.clone()).unwrap_or_default();
    if new.replicas == new.updated_replicas && reason == NEW_SET_AVAILABLE {
        return;
    }
    let subject = match set {
        Some(name) => format!("ReplicaSet {name:?}"),
        None => format!("Deployment {:?}", rollout.name()),
    };
    let make = |status: &str, reason: &str, what: &str| {
        deployment_condition(PROGRESSING, status, reason, format!("{subject} {what}."), rollout.now)
    };
    if complete(rollout, new) {
        set_deployment_condition(conditions, make("True", NEW_SET_AVAILABLE, "has successfully progressed"));
    } else if progressed(old, new) {
        let mut condition = make("True", "ReplicaSetUpdated", "is progressing");
        if let Some(known) = known.filter(|known| known.status == "True") {
            condition.last_transition_time = known.last_transition_time;
        }
        conditions.retain(|condition| condition.type_ != PROGRESSING);
        conditions.push(condition);
    } else if let Some(known) = known.filter(|_| reason != TIMED_OUT) {
        let Some(limit) = deadline(rollout) else { return };
        let Some(since) = known.last_update_time.or(known.last_transition_time) else { return };
        let left = SignedDuration::from_secs(i64::from(limit)) - rollout.now.duration_since(since.0);
        // A rollout that was complete and lost a pod is not a rollout that is late.
        if reason == NEW_SET_AVAILABLE {
            return;
        }
        if left.is_negative() {
            set_deployment_condition(conditions, make("False", TIMED_OUT, "has timed out progressing"));
        } else {
            plan.requeue(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1));
        }
    }
}

/// More updated, ready or available pods, or fewer old ones, than the last status said.
fn progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let old_pods = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    new.updated_replicas > old.updated_replicas
        || old_pods(new) < old_pods(old)
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

/// The current ReplicaSet's failure to make pods, else an old one's, is the Deployment's.
fn carry_failure(owned: &[Set], current: Option<usize>, conditions: &mut Vec<DeploymentCondition>) {
    let failure = |set: &Set| {
        let status = set.object.status.as_ref()?;
        status.conditions.iter().flatten().find(|condition| condition.type_ == "ReplicaFailure").cloned()
    };
    match current.and_then(|current| failure(&owned[current])).or_else(|| owned.iter().find_map(failure)) {
        Some(found) => {
            let condition = DeploymentCondition {
                type_: found.type_,
                status: found.status,
                reason: found.reason,
                message: found.message,
                last_update_time: found.last_transition_time.clone(),
                last_transition_time: found.last_transition_time,
            };
            set_deployment_condition(conditions, condition);
        }
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
    }
}

fn write(rollout: &Rollout<'_>, old: &DeploymentStatus, new: DeploymentStatus, plan: &mut Plan) {
    if let Some(patch) = difference(old, &new) {
        plan.push(Op::update_status(DEPLOYMENTS, rollout.namespace(), rollout.name(), patch));
    }
}

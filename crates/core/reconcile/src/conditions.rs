//! Conditions of apps/v1 objects: one per type, with the upstream rules for when times change.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DeploymentCondition, ReplicaSetCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Puts a condition in: status and reason unchanged means nothing changes, status unchanged keeps the transition time.
pub fn set_deployment_condition(conditions: &mut Vec<DeploymentCondition>, mut condition: DeploymentCondition) {
    if let Some(known) = conditions.iter().find(|known| known.type_ == condition.type_) {
        if known.status == condition.status && known.reason == condition.reason {
            return;
        }
        if known.status == condition.status {
            condition.last_transition_time.clone_from(&known.last_transition_time);
        }
    }
    conditions.retain(|known| known.type_ != condition.type_);
    conditions.push(condition);
}

pub fn deployment_condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(seconds(now)),
        last_transition_time: Some(seconds(now)),
    }
}

/// As [`set_deployment_condition`], for ReplicaSets.
pub fn set_replicaset_condition(conditions: &mut Vec<ReplicaSetCondition>, condition: ReplicaSetCondition) {
    let same = |known: &ReplicaSetCondition| {
        known.type_ == condition.type_ && known.status == condition.status && known.reason == condition.reason
    };
    if conditions.iter().any(same) {
        return;
    }
    conditions.retain(|known| known.type_ != condition.type_);
    conditions.push(condition);
}

/// API times have whole seconds; a fraction would make equal statuses differ.
pub fn seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

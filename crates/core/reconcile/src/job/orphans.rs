//! Pods that keep a Job's finalizer although no Job will count them any more.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use serde_json::json;

use super::{TRACKING, is_finished, is_managed_elsewhere, is_tracked};
use crate::PodView;
use crate::plan::{Op, PODS, PatchKind, Plan, Step};

/// Whether the pod may be stuck: the shell then asks the API, not the cache, for its Job.
pub fn is_suspect(pod: &PodView, job: Option<&Arc<Job>>) -> bool {
    is_tracked(pod)
        && match pod.controller() {
            None => true,
            Some(owner) if owner.kind != "Job" || owner.api_version != "batch/v1" => false,
            Some(owner) => job.is_none_or(|job| job.metadata.uid.as_ref() != Some(&owner.uid) || is_finished(job)),
        }
}

/// The removal of the finalizer, unless a Job or somebody else's controller still needs it. `job` is the live Job of
/// the name that the pod's owner has.
pub fn plan(pod: &PodView, job: Option<&Job>) -> Plan {
    let mut plan = Plan::default();
    let own = job.filter(|job| {
        let owner = pod.controller();
        owner.is_some_and(|owner| job.metadata.uid.as_ref() == Some(&owner.uid))
    });
    let needed = own.is_some_and(|job| is_managed_elsewhere(job) || !is_finished(job));
    if is_tracked(pod) && !needed {
        plan.push(Step::from(untrack(pod)));
    }
    plan
}

/// Removes the finalizer and nobody else's; the uid binds it to this incarnation.
pub fn untrack(pod: &PodView) -> Op {
    let body = json!({ "metadata": { "uid": pod.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING] } });
    let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
    Op::Patch { resource: PODS, namespace, name, subresource: None, kind: PatchKind::Strategic, body }
}

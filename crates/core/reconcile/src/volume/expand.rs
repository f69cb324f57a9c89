//! Growing a volume: what a claim asks for beyond what it has, and how its status tells of it.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition};
use serde_json::{Value, json};

use super::{disk, name, namespace, requested_bytes, storage_bytes, volume_of_claim};
use crate::plan::{Op, PERSISTENT_VOLUME_CLAIMS, to_value};

pub const PENDING_MESSAGE: &str =
    "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";

/// The size that the volume has to reach; `None`: it has it.
pub fn wanted(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<i64> {
    let status = claim.status.as_ref()?;
    let is_bound = status.phase.as_deref() == Some("Bound") && volume_of_claim(claim) == name(&volume.metadata);
    if !is_bound || !disk::is_ours(volume) || claim.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let wanted = disk::rounded(requested_bytes(claim));
    let has = storage_bytes(status.capacity.as_ref());
    let volume_has = storage_bytes(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()));
    (wanted > has || wanted > volume_has).then_some(wanted)
}

/// How far a growth has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The node is asked.
    Started,
    /// The disk is larger, its file system grows when it is mounted next.
    Pending,
    /// Done.
    Grown,
    /// The node cannot.
    Infeasible(&'a str),
}

/// The claim's status at a step of its growth; `None`: it says so already.
pub fn status(claim: &PersistentVolumeClaim, bytes: i64, progress: Progress<'_>, now: &str) -> Option<Op> {
    let size = disk::quantity(bytes);
    let condition = |kind: &str, message: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": now, "message": message});
    let (conditions, rest) = match progress {
        Progress::Started => (
            vec![condition("Resizing", "")],
            json!({"allocatedResources": {"storage": size},
                   "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"}}),
        ),
        Progress::Pending => (
            vec![condition("FileSystemResizePending", PENDING_MESSAGE)],
            json!({"allocatedResources": {"storage": size},
                   "allocatedResourceStatuses": {"storage": "NodeResizePending"}}),
        ),
        Progress::Grown => (
            Vec::new(),
            json!({"capacity": {"storage": size}, "allocatedResources": {"storage": size},
                                "allocatedResourceStatuses": null}),
        ),
        Progress::Infeasible(why) => (
            vec![condition("ControllerResizeError", why)],
            json!({"allocatedResourceStatuses": {"storage": "ControllerResizeInfeasible"}}),
        ),
    };
    let status = claim.status.clone().unwrap_or_default();
    let known = status.conditions.unwrap_or_default();
    let ours = |kind: &str| {
        matches!(kind, "Resizing" | "FileSystemResizePending" | "ControllerResizeError" | "NodeResizeError")
    };
    let (own, others): (Vec<_>, Vec<_>) = known.into_iter().partition(|condition| ours(&condition.type_));
    let mut body = rest;
    let told = same(&own, &conditions);
    if !told {
        let mut all: Vec<Value> = others.iter().map(to_value).collect();
        all.extend(conditions);
        body["conditions"] = if all.is_empty() { Value::Null } else { all.into() };
    }
    let live = to_value(&claim.status);
    let covered = told && body.as_object().is_some_and(|body| body.iter().all(|(key, value)| live[key] == *value));
    (!covered)
        .then(|| Op::update_status(PERSISTENT_VOLUME_CLAIMS, namespace(&claim.metadata), name(&claim.metadata), body))
}

fn same(known: &[PersistentVolumeClaimCondition], wanted: &[Value]) -> bool {
    known.len() == wanted.len()
        && known.iter().zip(wanted).all(|(known, wanted)| {
            known.type_ == wanted["type"] && known.message.as_deref().unwrap_or_default() == wanted["message"]
        })
}

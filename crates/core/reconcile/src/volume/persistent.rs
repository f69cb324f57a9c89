//! The volume's side of binding: its phase, and what becomes of it when its claim is gone.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};

use super::{
    BOUND_BY_CONTROLLER, PROVISIONED_BY, annotation, claim_reference, mode, name, uid, volume_of_claim,
    volume_reference,
};
use crate::plan::{Note, Op, PERSISTENT_VOLUMES, Plan, Step};

/// What is to be done about the volume. `claim` is the one that its reference names, of whatever uid.
pub fn plan(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &volume.spec else { return plan };
    let reserved = spec.claim_ref.as_ref().and_then(|reference| reference.uid.as_deref()).filter(|uid| !uid.is_empty());
    let Some(reserved) = reserved else {
        set_phase(volume, "Available", None, &mut plan);
        return plan;
    };
    let Some(claim) = claim.filter(|claim| uid(&claim.metadata) == reserved) else {
        release(volume, &mut plan);
        return plan;
    };
    match volume_of_claim(claim) {
        "" if mode(spec.volume_mode.as_ref())
            != mode(claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_ref())) =>
        {
            let (volume_name, claim_name) = (name(&volume.metadata), name(&claim.metadata));
            let told = format!(
                "Cannot bind PersistentVolume to requested PersistentVolumeClaim {claim_name:?} due to incompatible \
                 volumeMode."
            );
            plan.notes.push(Note::warning(&volume_reference(volume), "VolumeMismatch", told));
            let told = format!(
                "Cannot bind PersistentVolume {volume_name:?} to requested PersistentVolumeClaim due to incompatible \
                 volumeMode."
            );
            plan.notes.push(Note::warning(&claim_reference(claim), "VolumeMismatch", told));
        }
        // The claim's side finishes the binding.
        "" => {}
        bound if bound == name(&volume.metadata) => set_phase(volume, "Bound", None, &mut plan),
        _ => {
            let made_for_it = annotation(&volume.metadata, PROVISIONED_BY).is_some();
            if made_for_it && spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete") {
                release(volume, &mut plan);
            } else {
                unbind(volume, &mut plan);
            }
        }
    }
    plan
}

fn set_phase(volume: &PersistentVolume, phase: &str, told: Option<(&'static str, String)>, plan: &mut Plan) {
    if volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase) {
        return;
    }
    let message = told.as_ref().map_or(Value::Null, |(_, message)| message.as_str().into());
    let status = json!({"phase": phase, "message": message});
    let step: Step = Op::update_status(PERSISTENT_VOLUMES, "", name(&volume.metadata), status).into();
    plan.push(match told {
        Some((reason, message)) => step.on_success(Note::warning(&volume_reference(volume), reason, message)),
        None => step,
    });
}

/// Its claim is gone.
fn release(volume: &PersistentVolume, plan: &mut Plan) {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    if !matches!(phase, Some("Released" | "Failed")) {
        set_phase(volume, "Released", None, plan);
    }
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    match policy {
        Some("Recycle") => {
            let message = "No recycler plugin found for the volume!".to_owned();
            set_phase(volume, "Failed", Some(("VolumeFailedRecycle", message)), plan);
        }
        // Whoever made it removes it.
        Some("Delete") if annotation(&volume.metadata, PROVISIONED_BY).is_none() => {
            let name = name(&volume.metadata);
            let message = format!("error getting deleter volume plugin for volume {name:?}: no volume plugin matched");
            set_phase(volume, "Failed", Some(("VolumeFailedDelete", message)), plan);
        }
        _ => {}
    }
}

/// Takes back a binding to a claim that chose another volume; one that the user wrote stays reserved by name.
fn unbind(volume: &PersistentVolume, plan: &mut Plan) {
    let body = if annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some() {
        json!({"metadata": {"annotations": {BOUND_BY_CONTROLLER: null}}, "spec": {"claimRef": null}})
    } else {
        json!({"spec": {"claimRef": {"uid": null}}})
    };
    let mut body = body;
    body["metadata"]["resourceVersion"] = json!(volume.metadata.resource_version);
    plan.push(Op::update(PERSISTENT_VOLUMES, "", name(&volume.metadata), body));
    set_phase(volume, "Available", None, plan);
}

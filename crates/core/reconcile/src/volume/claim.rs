//! The claim's side of binding: finds its volume and binds both to each other, or says what it waits for.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, NO_PROVISIONER, PROVISIONER, PROVISIONER_BETA, SELECTED_NODE, annotation,
    claim_reference, class_of_claim, default_class, disk, is_bound_to, matching, name, namespace, uid, volume_of_claim,
    waits_for_consumer,
};
use crate::plan::{Note, Op, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, Plan, Step, to_value};

/// What the decision about one claim is made from.
pub struct View<'a> {
    pub claim: &'a PersistentVolumeClaim,
    pub volumes: Vec<&'a PersistentVolume>,
    pub classes: Vec<&'a StorageClass>,
    /// Names of the pods that use the claim and have no node yet.
    pub waiting_pods: Vec<String>,
}

/// What is to be done about the claim.
pub fn plan(view: &View<'_>) -> Plan {
    if annotation(&view.claim.metadata, BIND_COMPLETED).is_some() {
        return bound(view);
    }
    match volume_of_claim(view.claim) {
        "" => unbound(view),
        wanted => asks_for(view, wanted),
    }
}

/// A claim that takes any volume.
fn unbound(view: &View<'_>) -> Plan {
    let claim = view.claim;
    let class_name = class_of_claim(claim);
    let class = view.classes.iter().find(|class| name(&class.metadata) == class_name);
    let delayed = class.is_some_and(|class| waits_for_consumer(class));
    if let Some(volume) = matching::best(claim, view.volumes.iter().copied(), delayed) {
        return bind(claim, volume);
    }
    let mut plan = Plan::default();
    let says_class = claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_some());
    if !says_class
        && class_name.is_empty()
        && let Some(default) = default_class(view.classes.iter().copied())
    {
        plan.push(update(claim, json!({"spec": {"storageClassName": default}})));
        return plan;
    }
    let about = claim_reference(claim);
    if delayed && annotation(&claim.metadata, SELECTED_NODE).is_none() {
        let (reason, message) = match view.waiting_pods.as_slice() {
            [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
            [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
            pods => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
        };
        plan.notes.push(Note::normal(&about, reason, message));
    } else if class_name.is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        plan.notes.push(Note::normal(&about, "FailedBinding", message));
    } else {
        provision(view, class.copied(), &mut plan);
        return plan;
    }
    report(claim, "Pending", None, &mut plan);
    plan
}

/// Names the provisioner on the claim: it makes the volume, and binding follows.
fn provision(view: &View<'_>, class: Option<&StorageClass>, plan: &mut Plan) {
    let claim = view.claim;
    let about = claim_reference(claim);
    let failed = |message: String| Note::warning(&about, "ProvisioningFailed", message);
    let Some(class) = class else {
        let missing = format!("storageclass.storage.k8s.io {:?} not found", class_of_claim(claim));
        plan.notes.push(failed(missing));
        return;
    };
    let provisioner = class.provisioner.as_str();
    if provisioner.starts_with("kubernetes.io/") {
        debug_assert!(NO_PROVISIONER.starts_with("kubernetes.io/"));
        plan.notes.push(failed(format!("no volume plugin matched name: {provisioner}")));
        return;
    }
    if annotation(&claim.metadata, PROVISIONER) != Some(provisioner) {
        let annotations = json!({PROVISIONER: provisioner, PROVISIONER_BETA: provisioner});
        plan.push(update(claim, json!({"metadata": {"annotations": annotations}})));
    }
    if provisioner != disk::PROVISIONER_NAME {
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        plan.notes.push(Note::normal(&about, "ExternalProvisioning", message));
    }
}

/// A claim that names its volume.
fn asks_for(view: &View<'_>, wanted: &str) -> Plan {
    let claim = view.claim;
    let mut plan = Plan::default();
    let Some(volume) = view.volumes.iter().find(|volume| name(&volume.metadata) == wanted) else {
        report(claim, "Pending", None, &mut plan);
        return plan;
    };
    let about = claim_reference(claim);
    let is_free = volume.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_none());
    if is_free {
        let marked = || format!("the volume is marked for deletion {wanted:?}");
        let leaving = volume.metadata.deletion_timestamp.is_some().then(marked);
        let Some(why) = leaving.or_else(|| matching::mismatch(claim, volume).map(str::to_owned)) else {
            return bind(claim, volume);
        };
        let message = format!("Cannot bind to requested volume {wanted:?}: {why}");
        plan.notes.push(Note::warning(&about, "VolumeMismatch", message));
    } else if is_bound_to(volume, claim) {
        return bind(claim, volume);
    } else {
        let message = format!("volume {wanted:?} already bound to a different claim.");
        plan.notes.push(Note::warning(&about, "FailedBinding", message));
    }
    report(claim, "Pending", None, &mut plan);
    plan
}

/// A claim that was bound before.
fn bound(view: &View<'_>) -> Plan {
    let claim = view.claim;
    let wanted = volume_of_claim(claim);
    let lost = |reason, message| {
        let mut plan = Plan::default();
        report(claim, "Lost", None, &mut plan);
        if let Some(step) = plan.steps.first_mut() {
            step.done = Some(Note::warning(&claim_reference(claim), reason, message));
        }
        plan
    };
    if wanted.is_empty() {
        return lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!");
    }
    let Some(volume) = view.volumes.iter().find(|volume| name(&volume.metadata) == wanted) else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if reference.is_none_or(|reference| reference.uid == claim.metadata.uid) {
        return bind(claim, volume);
    }
    lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}

/// Writes the binding: first the volume's side, which is what two claims could dispute, then the claim's.
fn bind(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Plan {
    let mut plan = Plan::default();
    let volume_name = name(&volume.metadata);
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let is_complete = reference.is_some_and(|reference| reference.uid == claim.metadata.uid);
    if !is_complete || !is_bound_to(volume, claim) {
        let mut body = json!({
            "metadata": {"resourceVersion": volume.metadata.resource_version},
            "spec": {"claimRef": to_value(&claim_reference(claim))},
        });
        if !is_bound_to(volume, claim) {
            body["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
        }
        plan.push(Op::update(PERSISTENT_VOLUMES, "", volume_name, body));
    }
    if volume.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
        plan.push(Op::update_status(PERSISTENT_VOLUMES, "", volume_name, json!({"phase": "Bound", "message": null})));
    }
    let mut body = json!({});
    if volume_of_claim(claim) != volume_name {
        body["spec"] = json!({"volumeName": volume_name});
        body["metadata"]["annotations"][BOUND_BY_CONTROLLER] = "yes".into();
    }
    if annotation(&claim.metadata, BIND_COMPLETED).is_none() {
        body["metadata"]["annotations"][BIND_COMPLETED] = "yes".into();
    }
    if body != json!({}) {
        plan.push(update(claim, body));
    }
    report(claim, "Bound", Some(volume), &mut plan);
    plan
}

fn update(claim: &PersistentVolumeClaim, mut body: Value) -> Step {
    body["metadata"]["uid"] = uid(&claim.metadata).into();
    Op::update(PERSISTENT_VOLUME_CLAIMS, namespace(&claim.metadata), name(&claim.metadata), body).into()
}

/// The status that goes with a phase, where it differs. The capacity is written once: later it tells how large the file
/// system is, which lags behind the volume while that grows.
fn report(claim: &PersistentVolumeClaim, phase: &str, volume: Option<&PersistentVolume>, plan: &mut Plan) {
    let status = claim.status.clone().unwrap_or_default();
    let is_new = status.phase.as_deref() != Some(phase);
    let mut body = json!({});
    if is_new {
        body["phase"] = phase.into();
    }
    let of_volume = volume.and_then(|volume| volume.spec.as_ref());
    let modes = of_volume.and_then(|spec| spec.access_modes.clone());
    if status.access_modes != modes {
        body["accessModes"] = modes.map_or(Value::Null, |modes| to_value(&modes));
    }
    match of_volume.map(|spec| &spec.capacity) {
        None if status.capacity.is_some() => body["capacity"] = Value::Null,
        Some(capacity) if is_new && status.capacity != *capacity => body["capacity"] = to_value(capacity),
        _ => {}
    }
    let attributes = of_volume.and_then(|spec| spec.volume_attributes_class_name.clone());
    if status.current_volume_attributes_class_name != attributes && (is_new || volume.is_none()) {
        body["currentVolumeAttributesClassName"] = attributes.map_or(Value::Null, Value::from);
    }
    if body != json!({}) {
        let (namespace, name) = (namespace(&claim.metadata), name(&claim.metadata));
        plan.push(Op::update_status(PERSISTENT_VOLUME_CLAIMS, namespace, name, body));
    }
}

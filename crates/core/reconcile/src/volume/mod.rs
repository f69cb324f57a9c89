//! What claims and volumes are to each other: the words of their annotations, and what both sides of a binding read.

pub mod claim;
pub mod disk;
pub mod ephemeral;
pub mod expand;
pub mod matching;
pub mod persistent;
pub mod protection;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::quantity::Quantity;

/// On a claim: its binding has been written on both sides once.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On either side: the controller made the binding, so it may take it back.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: the provisioner that made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: who has to make its volume.
pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
pub const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a claim: the node that the scheduler wants its volume on.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On either side: the class before it was a field.
pub const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
/// On a class: claims without a class get this one.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
pub const DEFAULT_CLASS_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
/// The provisioner of classes whose volumes nobody makes.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";

pub(crate) fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

pub(crate) fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

pub(crate) fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// The class that a claim names; empty: none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let named = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(&claim.metadata, CLASS_BETA).or(named).unwrap_or_default()
}

/// The class of a volume; empty: none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let named = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(&volume.metadata, CLASS_BETA).or(named).unwrap_or_default()
}

/// The volume that a claim names; empty: none.
pub fn volume_of_claim(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// Whether volumes of the class are chosen with the pod's node.
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// The default class of a cluster: the newest of those marked so, the first by name among equals.
pub fn default_class<'a>(classes: impl IntoIterator<Item = &'a StorageClass>) -> Option<&'a str> {
    let marked = |class: &&StorageClass| {
        let is = |key| annotation(&class.metadata, key) == Some("true");
        is(DEFAULT_CLASS) || is(DEFAULT_CLASS_BETA)
    };
    let newest = classes.into_iter().filter(marked).min_by_key(|class| {
        let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (std::cmp::Reverse(created), name(&class.metadata).to_owned())
    });
    newest.map(|class| name(&class.metadata))
}

/// Bytes of the resource `storage`; zero where it is absent or no quantity.
pub fn storage_bytes(resources: Option<&BTreeMap<String, Text>>) -> i64 {
    let text = resources.and_then(|all| all.get("storage"));
    text.and_then(|text| text.0.parse::<Quantity>().ok()).map_or(0, Quantity::value)
}

/// What a claim asks for.
pub fn requested_bytes(claim: &PersistentVolumeClaim) -> i64 {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage_bytes(resources.and_then(|resources| resources.requests.as_ref()))
}

pub(crate) fn mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

/// Whether a volume is reserved for a claim: by name, and by uid where that is written already.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    let (own, uid) = (&claim.metadata, reference.uid.as_deref().unwrap_or_default());
    reference.name.as_deref() == own.name.as_deref()
        && reference.namespace.as_deref() == own.namespace.as_deref()
        && (uid.is_empty() || own.uid.as_deref() == Some(uid))
}

/// How events and volumes refer to a claim.
pub fn claim_reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// How events refer to a volume.
pub fn volume_reference(volume: &PersistentVolume) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolume".to_owned()),
        name: volume.metadata.name.clone(),
        uid: volume.metadata.uid.clone(),
        resource_version: volume.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

//! Rules of volumes, and of what may change in volumes and claims once they exist.

use meta::quantity::Quantity;
use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use super::persistentvolumeclaim::access_modes;
use crate::json::{list, map, text};
use crate::rules;

/// Where the data of a volume can be.
const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

pub fn validate_volume(volume: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&volume["spec"], FieldPath::new("spec"));
    access_modes_of_volume(&mut errors, spec, &path);
    capacity(&mut errors, spec, &path.child("capacity"));
    rules::one_of(&mut errors, spec, &path, "persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]);
    rules::one_of(&mut errors, spec, &path, "volumeMode", &["Block", "Filesystem"]);
    let mut found = SOURCES.iter().filter(|source| !spec[**source].is_null());
    if found.next().is_none() {
        errors.push(FieldError::required(&path, "must specify a volume type"));
    }
    for more in found {
        errors.push(FieldError::forbidden(&path.child(more), "may not specify more than 1 volume type"));
    }
    for source in ["hostPath", "local"].into_iter().filter(|source| !spec[*source].is_null()) {
        local_path(&mut errors, text(&spec[source], "path"), &path.child(source).child("path"));
    }
    if !spec["local"].is_null() && spec["nodeAffinity"]["required"].is_null() {
        errors.push(FieldError::required(&path.child("nodeAffinity"), "Local volume requires node affinity"));
    }
    if text(spec, "hostPath.path") == "/" && text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden(&path.child("persistentVolumeReclaimPolicy"), why));
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        rules::name(&mut errors, &path.child("storageClassName"), class, names::dns_subdomain);
    }
    errors
}

fn access_modes_of_volume(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let (modes, path) = (list(spec, "accessModes"), path.child("accessModes"));
    if modes.is_empty() {
        errors.push(FieldError::required(&path, ""));
    } else {
        access_modes(errors, modes, &path);
    }
}

fn capacity(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let all = map(spec, "capacity");
    if all.is_none_or(serde_json::Map::is_empty) {
        errors.push(FieldError::required(path, ""));
    }
    for (name, size) in all.into_iter().flatten() {
        if let Ok(amount) = Quantity::from_value(size)
            && (amount.is_zero() || amount.is_negative())
        {
            errors.push(FieldError::invalid(&path.key(name), amount.to_string(), "must be greater than zero"));
        }
    }
}

fn local_path(errors: &mut FieldErrors, value: &str, path: &FieldPath) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if value.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, value, "must not contain '..'"));
    }
}

pub fn validate_volume_update(new: &Value, old: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let source = |volume: &Value, name: &str| {
        let mut source = volume["spec"][name].clone();
        // Secrets for growth may be named later.
        if old["spec"]["csi"]["controllerExpandSecretRef"].is_null()
            && let Some(source) = source.as_object_mut()
        {
            source.remove("controllerExpandSecretRef");
        }
        source
    };
    if SOURCES.iter().any(|name| source(new, name) != source(old, name)) {
        let path = FieldPath::new("spec").child("persistentvolumesource");
        errors.push(FieldError::forbidden(&path, "spec.persistentvolumesource is immutable after creation"));
    }
    let mode = |volume: &Value| volume["spec"]["volumeMode"].clone();
    rules::immutable(&mut errors, &mode(new), &mode(old), &FieldPath::new("volumeMode"));
    let affinity = |volume: &Value| volume["spec"]["nodeAffinity"].clone();
    if !affinity(old).is_null() {
        rules::immutable(&mut errors, &affinity(new), &affinity(old), &FieldPath::new("nodeAffinity"));
    }
    errors
}

pub fn validate_claim_update(new: &Value, old: &Value) -> FieldErrors {
    const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
    let mut errors = Vec::new();
    let path = FieldPath::new("spec");
    let (mut left, mut right) = (new["spec"].clone(), old["spec"].clone());
    let mut free = |key: &str| {
        for side in [&mut left, &mut right] {
            if let Some(side) = side.as_object_mut() {
                side.remove(key);
            }
        }
    };
    if text(old, "spec.volumeName").is_empty() {
        free("volumeName");
    }
    if old["spec"]["storageClassName"].is_null() && old["metadata"]["annotations"][CLASS_BETA].is_null() {
        free("storageClassName");
    }
    if text(old, "status.phase") == "Bound" {
        free("volumeAttributesClassName");
        for side in [&mut left, &mut right] {
            if let Some(requests) = side["resources"]["requests"].as_object_mut() {
                requests.remove("storage");
            }
        }
    }
    if left != right {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
                   claims";
        errors.push(FieldError::forbidden(&path, why));
    }
    let size = |value: &Value| Quantity::from_value(value).ok();
    let asked = |claim: &Value| size(&claim["spec"]["resources"]["requests"]["storage"]);
    if let (Some(after), Some(before)) = (asked(new), asked(old))
        && after < before
        && size(&old["status"]["capacity"]["storage"]).is_some_and(|has| after <= has)
    {
        let path = path.child("resources").child("requests").child("storage");
        errors.push(FieldError::forbidden(&path, "field can not be less than status.capacity"));
    }
    let mode = |claim: &Value| claim["spec"]["volumeMode"].clone();
    rules::immutable(&mut errors, &mode(new), &mode(old), &FieldPath::new("volumeMode"));
    errors
}

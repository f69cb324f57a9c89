//! v1 PersistentVolumeClaim: a request for storage.

use meta::labels;
use meta::quantity::Quantity;
use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::{Value, json};

use super::V1;
use super::pod_defaults::default_resources;
use crate::json::{child, ensure, fill, fill_empty, list, set, text};
use crate::kind::{Column, Kind, texts};
use crate::{columns, rules};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["pvc"]),
        has_status: true,
        columns: vec![
            columns::name(),
            Column::new("Status", "string", "Whether it has a volume.", |o, _| columns::phase(o)),
            Column::new("Volume", "string", "Its volume.", |o, _| text(o, "spec.volumeName").into()),
            Column::new("Capacity", "string", "The size of its volume.", |o, _| {
                if_bound(o, || text(o, "status.capacity.storage").to_owned())
            }),
            Column::new("Access Modes", "string", "How its volume may be mounted.", |o, _| {
                if_bound(o, || columns::access_modes(list(o, "status.accessModes")))
            }),
            Column::new("StorageClass", "string", "The class that makes its volume.", |o, _| {
                columns::storage_class(o).into()
            }),
            Column::new("VolumeAttributesClass", "string", "Its changeable parameters.", |o, _| {
                columns::or_unset(&o["spec"]["volumeAttributesClassName"])
            }),
            columns::age(),
            Column::new("VolumeMode", "string", "Block or file system.", |o, _| {
                columns::or_unset(&o["spec"]["volumeMode"])
            })
            .wide(),
        ]
        .into(),
        default: default_claim,
        prepare_create: |claim| set(claim, "status", json!({"phase": "Pending"})),
        validate,
        validate_update: super::storage_rules::validate_claim_update,
        ..Kind::namespaced(V1, "PersistentVolumeClaim", "persistentvolumeclaims")
    }
}

fn if_bound(claim: &Value, cell: impl Fn() -> String) -> Value {
    if text(claim, "spec.volumeName").is_empty() { "".into() } else { cell().into() }
}

/// Defaults of a claim, also inside a StatefulSet.
pub fn default_claim(claim: &mut Value) {
    if let Some(spec) = child(claim, "spec") {
        default_claim_spec(spec);
    }
    if let Some(status) = ensure(claim, "status") {
        fill_empty(status, "phase", "Pending");
    }
}

pub fn default_claim_spec(spec: &mut Value) {
    fill(spec, "volumeMode", "Filesystem");
    if let Some(resources) = ensure(spec, "resources") {
        default_resources(resources);
    }
}

fn validate(claim: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    validate_claim_spec(&mut errors, &claim["spec"], &FieldPath::new("spec"));
    errors
}

/// Rules of a claim's spec, also inside a StatefulSet.
pub fn validate_claim_spec(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    access_modes(errors, list(spec, "accessModes"), &path.child("accessModes"));
    if !spec["selector"].is_null() {
        errors.extend(labels::validate_label_selector(&spec["selector"], &path.child("selector")));
    }
    let (size, at) = (&spec["resources"]["requests"]["storage"], path.child("resources").key("storage"));
    if size.is_null() {
        errors.push(FieldError::required(&at, ""));
    } else if let Ok(amount) = Quantity::from_value(size)
        && (amount.is_zero() || amount.is_negative())
    {
        errors.push(FieldError::invalid(&at, amount.to_string(), "must be greater than zero"));
    }
    rules::one_of(errors, spec, path, "volumeMode", &["Block", "Filesystem"]);
    for key in ["storageClassName", "volumeAttributesClassName"] {
        let class = text(spec, key);
        if !class.is_empty() {
            rules::name(errors, &path.child(key), class, names::dns_subdomain);
        }
    }
}

/// Each mode is known, and the one for a single pod stands alone.
pub fn access_modes(errors: &mut FieldErrors, modes: &[Value], path: &FieldPath) {
    const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    const ALONE: &str = "ReadWriteOncePod";
    if modes.is_empty() {
        errors.push(FieldError::required(path, "at least 1 access mode is required"));
    }
    let modes = || modes.iter().map(|mode| mode.as_str().unwrap_or_default());
    for unknown in modes().filter(|mode| !MODES.contains(mode)) {
        errors.push(FieldError::not_supported(path, unknown, &MODES));
    }
    if modes().any(|mode| mode == ALONE) && modes().any(|mode| mode != ALONE && MODES.contains(&mode)) {
        errors.push(FieldError::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

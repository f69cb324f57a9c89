//! v1 PersistentVolumeClaim: a request for storage.

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::{Value, json};

use super::V1;
use super::pod_defaults::default_resources;
use crate::columns;
use crate::json::{child, ensure, fill, fill_empty, list, set, text};
use crate::kind::{Column, Kind, texts};

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
    let (spec, path) = (&claim["spec"], FieldPath::new("spec"));
    if list(spec, "accessModes").is_empty() {
        let why = "at least 1 access mode is required";
        errors.push(FieldError::required(&path.child("accessModes"), why));
    }
    if spec["resources"]["requests"]["storage"].is_null() {
        errors.push(FieldError::required(&path.child("resources").key("storage"), ""));
    }
    errors
}

//! apps/v1 ReplicaSet: keeps a number of equal pods running.

use meta::{FieldErrors, FieldPath, Gvk};
use serde_json::{Value, json};

use super::V1;
use crate::core::default_template;
use crate::json::{child, fill, int, set};
use crate::kind::{Column, Kind, SelectableField, Subresource, texts};
use crate::{columns, rules};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["rs"]),
        categories: texts(&["all"]),
        has_status: true,
        has_generation: true,
        subresources: vec![Subresource::speaking(
            "scale",
            Gvk::new("autoscaling", "v1", "Scale"),
            &["get", "patch", "update"],
        )]
        .into(),
        columns: columns().into(),
        default,
        prepare_create,
        selectable_fields: vec![SelectableField {
            path: "status.replicas".into(),
            read: |o| int(o, "status.replicas").to_string(),
        }]
        .into(),
        validate,
        validate_update: super::workload_rules::validate_update,
        ..Kind::namespaced(V1, "ReplicaSet", "replicasets")
    }
}

fn columns() -> Vec<Column> {
    let mut all = vec![
        columns::name(),
        Column::new("Desired", "integer", "Pods wanted.", |o, _| columns::number(o, "spec.replicas")),
        Column::new("Current", "integer", "Pods there are.", |o, _| columns::number(o, "status.replicas")),
        Column::new("Ready", "integer", "Pods that are ready.", |o, _| columns::number(o, "status.readyReplicas")),
        columns::age(),
    ];
    all.extend(columns::template());
    all.push(columns::selector_column());
    all
}

fn default(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    fill(spec, "replicas", 1);
    if let Some(template) = child(spec, "template") {
        default_template(template);
    }
}

fn prepare_create(object: &mut Value) {
    set(object, "status", json!({"replicas": 0}));
}

fn validate(object: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let path = FieldPath::new("spec");
    rules::not_negative(&mut errors, &object["spec"], &path, "replicas");
    rules::not_negative(&mut errors, &object["spec"], &path, "minReadySeconds");
    super::workload_rules::selector_and_template(&mut errors, object, "deployment");
    errors
}

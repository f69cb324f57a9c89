//! v1 ReplicationController: keeps a number of equal pods running; the ancestor of ReplicaSet.

use meta::{FieldErrors, FieldPath, Gvk};
use serde_json::{Value, json};

use super::V1;
use super::pod_defaults::default_template;
use crate::apps::workload_rules;
use crate::columns;
use crate::json::{child, fill, fill_empty, int, set};
use crate::kind::{Column, Kind, SelectableField, Subresource, texts};
use crate::rules;

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["rc"]),
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
        validate,
        selectable_fields: vec![SelectableField {
            path: "status.replicas".into(),
            read: |o| int(o, "status.replicas").to_string(),
        }]
        .into(),
        ..Kind::namespaced(V1, "ReplicationController", "replicationcontrollers")
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
    all.push(
        Column::new("Selector", "string", "Selects the pods that belong to it.", |o, _| {
            columns::labels(&o["spec"]["selector"])
        })
        .wide(),
    );
    all
}

/// The template's labels select and label where the author names no others.
fn default(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    let Some(spec) = child(object, "spec") else { return };
    fill(spec, "replicas", 1);
    if let Some(template) = child(spec, "template") {
        default_template(template);
    }
    if labels.is_object() {
        fill_empty(spec, "selector", labels.clone());
        if let Some(metadata) = child(object, "metadata") {
            fill_empty(metadata, "labels", labels);
        }
    }
}

fn validate(object: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&object["spec"], FieldPath::new("spec"));
    rules::not_negative(&mut errors, spec, &path, "minReadySeconds");
    rules::not_negative(&mut errors, spec, &path, "replicas");
    rules::required(&mut errors, spec, &path, "selector");
    rules::required(&mut errors, spec, &path, "template");
    if spec["template"].is_object() {
        let selector = match &spec["selector"] {
            Value::Object(labels) if !labels.is_empty() => json!({ "matchLabels": labels }),
            _ => json!({}),
        };
        workload_rules::template(&mut errors, &spec["template"], &selector, "ReplicationController");
    }
    errors
}

fn prepare_create(object: &mut Value) {
    set(object, "status", json!({"replicas": 0}));
}

//! apps/v1 StatefulSet: pods with stable names and storage.

use meta::{FieldError, FieldErrors, FieldPath, Gvk};
use serde_json::{Value, json};

use super::V1;
use crate::core::{default_claim, default_template};
use crate::json::{child, ensure, fill, fill_empty, int, items, remove, set};
use crate::kind::{Column, Kind, Subresource, texts};
use crate::{columns, rules};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["sts"]),
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
        validate_update,
        ..Kind::namespaced(V1, "StatefulSet", "statefulsets")
    }
}

fn columns() -> Vec<Column> {
    let ready = |o: &Value, _| format!("{}/{}", int(o, "status.readyReplicas"), int(o, "spec.replicas")).into();
    let mut all =
        vec![columns::name(), Column::new("Ready", "string", "Ready pods, of those wanted.", ready), columns::age()];
    all.extend(columns::template());
    all
}

fn default(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill_empty(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = ensure(spec, "updateStrategy") {
        fill_empty(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = ensure(strategy, "rollingUpdate")
        {
            fill(rolling, "partition", 0);
        }
    }
    if let Some(retention) = ensure(spec, "persistentVolumeClaimRetentionPolicy") {
        fill_empty(retention, "whenDeleted", "Retain");
        fill_empty(retention, "whenScaled", "Retain");
    }
    for claim in items(spec, "volumeClaimTemplates") {
        set(claim, "apiVersion", "v1");
        set(claim, "kind", "PersistentVolumeClaim");
        default_claim(claim);
    }
    if let Some(template) = child(spec, "template") {
        default_template(template);
    }
}

fn prepare_create(object: &mut Value) {
    set(object, "status", json!({"replicas": 0, "availableReplicas": 0}));
}

fn validate(object: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let path = FieldPath::new("spec");
    let policies = ["OrderedReady", "Parallel"];
    rules::one_of(&mut errors, &object["spec"], &path, "podManagementPolicy", &policies);
    rules::not_negative(&mut errors, &object["spec"], &path, "replicas");
    rules::not_negative(&mut errors, &object["spec"], &path, "minReadySeconds");
    super::workload_rules::selector_and_template(&mut errors, object, "statefulset");
    errors
}

const CHANGES: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

/// Names, storage and management of the pods stay as they were made.
fn validate_update(new: &Value, old: &Value) -> FieldErrors {
    const FREE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = |object: &Value| {
        let mut spec = object["spec"].clone();
        FREE.iter().for_each(|key| remove(&mut spec, key));
        spec
    };
    if fixed(new) == fixed(old) {
        return Vec::new();
    }
    vec![FieldError::forbidden(&FieldPath::new("spec"), CHANGES)]
}

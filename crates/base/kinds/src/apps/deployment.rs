//! apps/v1 Deployment: rolls out ReplicaSets.

use meta::{FieldError, FieldErrors, FieldPath, Gvk, intstr};
use serde_json::{Value, json};

use super::V1;
use crate::core::default_template;
use crate::json::{child, ensure, fill, fill_empty, int, set};
use crate::kind::{Column, Kind, Subresource, texts};
use crate::{columns, rules};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["deploy"]),
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
        validate_update: super::workload_rules::validate_update,
        ..Kind::namespaced(V1, "Deployment", "deployments")
    }
}

const REVISION_HISTORY: i64 = 10;
const PROGRESS_SECONDS: i64 = 600;

fn columns() -> Vec<Column> {
    let ready = |o: &Value, _| format!("{}/{}", int(o, "status.readyReplicas"), int(o, "spec.replicas")).into();
    let mut all = vec![
        columns::name(),
        Column::new("Ready", "string", "Ready pods, of those wanted.", ready),
        Column::new("Up-to-date", "string", "Pods of the newest template.", |o, _| {
            columns::number(o, "status.updatedReplicas")
        }),
        Column::new("Available", "string", "Pods that have been ready long enough.", |o, _| {
            columns::number(o, "status.availableReplicas")
        }),
        columns::age(),
    ];
    all.extend(columns::template());
    all.push(columns::selector_column());
    all
}

fn default(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", REVISION_HISTORY);
    fill(spec, "progressDeadlineSeconds", PROGRESS_SECONDS);
    if let Some(strategy) = ensure(spec, "strategy") {
        fill_empty(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = ensure(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
    }
    if let Some(template) = child(spec, "template") {
        default_template(template);
    }
}

fn prepare_create(object: &mut Value) {
    set(object, "status", json!({}));
}

fn validate(object: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&object["spec"], FieldPath::new("spec"));
    rules::not_negative(&mut errors, spec, &path, "replicas");
    super::workload_rules::selector_and_template(&mut errors, object, "deployment");
    validate_strategy(&mut errors, &spec["strategy"], &path.child("strategy"));
    rules::not_negative(&mut errors, spec, &path, "minReadySeconds");
    rules::not_negative(&mut errors, spec, &path, "revisionHistoryLimit");
    if let Some(deadline) = spec["progressDeadlineSeconds"].as_i64() {
        rules::not_negative(&mut errors, spec, &path, "progressDeadlineSeconds");
        if deadline <= int(spec, "minReadySeconds") {
            let path = path.child("progressDeadlineSeconds");
            errors.push(FieldError::invalid(&path, deadline, "must be greater than minReadySeconds"));
        }
    }
    errors
}

fn validate_strategy(errors: &mut FieldErrors, strategy: &Value, path: &FieldPath) {
    let rolling = &strategy["rollingUpdate"];
    match strategy["type"].as_str().unwrap_or_default() {
        "Recreate" if !rolling.is_null() => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden(&path.child("rollingUpdate"), why));
        }
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            for key in ["maxUnavailable", "maxSurge"] {
                super::workload_rules::number_or_percent(errors, &rolling[key], &path.child(key));
            }
            let zero = |key: &str| rolling[key] == 0 || intstr::percent(&rolling[key]) == Some(0);
            if zero("maxUnavailable") && zero("maxSurge") {
                let shown = rolling["maxUnavailable"].clone();
                let why = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(&path.child("maxUnavailable"), shown, why));
            }
            let bound = &rolling["maxUnavailable"];
            super::workload_rules::at_most_all(errors, bound, &path.child("maxUnavailable"));
        }
        "Recreate" => {}
        _ => {
            let shown = json!({"Type": strategy["type"], "RollingUpdate": {
                "MaxUnavailable": rolling["maxUnavailable"], "MaxSurge": rolling["maxSurge"]}});
            errors.push(FieldError::not_supported(path, shown, &["Recreate", "RollingUpdate"]));
        }
    }
}

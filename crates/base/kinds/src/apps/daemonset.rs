//! apps/v1 DaemonSet: one pod on every fitting node.

use meta::{FieldErrors, FieldPath};
use serde_json::{Value, json};

use super::V1;
use crate::core::default_template;
use crate::json::{child, ensure, fill, fill_empty, set};
use crate::kind::{Column, Kind, texts};
use crate::{columns, rules};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["ds"]),
        categories: texts(&["all"]),
        has_status: true,
        has_generation: true,
        columns: columns().into(),
        default,
        prepare_create,
        validate,
        validate_update: super::workload_rules::validate_update,
        ..Kind::namespaced(V1, "DaemonSet", "daemonsets")
    }
}

fn columns() -> Vec<Column> {
    let mut all = vec![
        columns::name(),
        Column::new("Desired", "integer", "Nodes that should run its pod.", |o, _| {
            columns::number(o, "status.desiredNumberScheduled")
        }),
        Column::new("Current", "integer", "Nodes that run its pod.", |o, _| {
            columns::number(o, "status.currentNumberScheduled")
        }),
        Column::new("Ready", "integer", "Nodes whose pod is ready.", |o, _| columns::number(o, "status.numberReady")),
        Column::new("Up-to-date", "integer", "Nodes with the newest pod.", |o, _| {
            columns::number(o, "status.updatedNumberScheduled")
        }),
        Column::new("Available", "integer", "Nodes whose pod has been ready long enough.", |o, _| {
            columns::number(o, "status.numberAvailable")
        }),
        Column::new("Node Selector", "string", "Selects its nodes.", |o, _| {
            columns::labels(&o["spec"]["template"]["spec"]["nodeSelector"])
        }),
        columns::age(),
    ];
    all.extend(columns::template());
    all.push(columns::selector_column());
    all
}

fn default(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    fill(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = ensure(spec, "updateStrategy") {
        fill_empty(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = ensure(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", 1);
            fill(rolling, "maxSurge", 0);
        }
    }
    if let Some(template) = child(spec, "template") {
        default_template(template);
    }
}

fn prepare_create(object: &mut Value) {
    let status = json!({
        "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
    });
    set(object, "status", status);
}

fn validate(object: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let path = FieldPath::new("spec");
    super::workload_rules::selector_and_template(&mut errors, object, "daemonset");
    rules::not_negative(&mut errors, &object["spec"], &path, "minReadySeconds");
    let strategy = &object["spec"]["updateStrategy"];
    rules::one_of(&mut errors, strategy, &path.child("updateStrategy"), "type", &["OnDelete", "RollingUpdate"]);
    rules::not_negative(&mut errors, &object["spec"], &path, "revisionHistoryLimit");
    errors
}

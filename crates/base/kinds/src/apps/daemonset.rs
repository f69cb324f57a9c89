//! apps/v1 DaemonSet: one pod on every fitting node.

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::{Value, json};

use super::{V1, workload_rules};
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
        prepare_update,
        validate,
        validate_update: workload_rules::validate_update,
        validate_status,
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

/// Counts the templates that a DaemonSet has had; clients cannot set it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn set_template_generation(object: &mut Value, generation: i64) {
    let metadata = ensure(object, "metadata");
    if let Some(annotations) = metadata.and_then(|metadata| ensure(metadata, "annotations")) {
        set(annotations, TEMPLATE_GENERATION, generation.to_string());
    }
}

fn template_generation(object: &Value) -> i64 {
    let annotation = object["metadata"]["annotations"][TEMPLATE_GENERATION].as_str();
    annotation.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn prepare_create(object: &mut Value) {
    let status = json!({
        "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
    });
    set(object, "status", status);
    let generation = template_generation(object).max(1);
    set_template_generation(object, generation);
}

fn prepare_update(new: &mut Value, old: &Value) {
    let changed = new["spec"]["template"] != old["spec"]["template"];
    set_template_generation(new, template_generation(old).saturating_add(i64::from(changed)));
}

fn validate(object: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&object["spec"], FieldPath::new("spec"));
    workload_rules::selector(&mut errors, &spec["selector"], "daemonset");
    workload_rules::template(&mut errors, &spec["template"], &spec["selector"], "DaemonSet");
    rules::not_negative(&mut errors, spec, &path, "minReadySeconds");
    strategy(&mut errors, &spec["updateStrategy"], &path.child("updateStrategy"));
    rules::not_negative(&mut errors, spec, &path, "revisionHistoryLimit");
    errors
}

fn strategy(errors: &mut FieldErrors, strategy: &Value, path: &FieldPath) {
    let rolling = &strategy["rollingUpdate"];
    match strategy["type"].as_str().unwrap_or_default() {
        "OnDelete" => {}
        "RollingUpdate" if rolling.is_null() => errors.push(FieldError::required(&path.child("rollingUpdate"), "")),
        "RollingUpdate" => bounds(errors, rolling, &path.child("rollingUpdate")),
        _ => {
            let shown = json!({"Type": strategy["type"], "RollingUpdate": rolling});
            errors.push(FieldError::not_supported(path, shown, &["RollingUpdate", "OnDelete"]));
        }
    }
}

/// Either pods are missing for a while or there are more for a while, not both and not neither.
fn bounds(errors: &mut FieldErrors, rolling: &Value, path: &FieldPath) {
    let keys = ["maxUnavailable", "maxSurge"];
    keys.iter().for_each(|key| workload_rules::number_or_percent(errors, &rolling[key], &path.child(key)));
    keys.iter().for_each(|key| workload_rules::at_most_all(errors, &rolling[key], &path.child(key)));
    let [unavailable, surge] = keys.map(|key| !workload_rules::is_zero(&rolling[key]));
    if unavailable && surge {
        let why = "may not be set when maxUnavailable is non-zero";
        errors.push(FieldError::invalid(&path.child("maxSurge"), rolling["maxSurge"].clone(), why));
    } else if !unavailable && !surge {
        errors.push(FieldError::required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"));
    }
}

fn validate_status(new: &Value, old: &Value) -> FieldErrors {
    const COUNTS: [&str; 7] = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
    ];
    let mut errors = Vec::new();
    workload_rules::status_counts(&mut errors, &new["status"], &old["status"], &COUNTS);
    errors
}

//! policy/v1 PodDisruptionBudget: how many pods an eviction may take away.

use meta::{FieldError, FieldErrors, FieldPath, labels, names};
use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{int, list, set, text};
use crate::kind::{Column, Kind, texts};
use crate::rules;

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["pdb"]),
        has_status: true,
        has_generation: true,
        columns: vec![
            columns::name(),
            Column::new("Min Available", "string", "Pods that must stay.", |o, _| count(&o["spec"]["minAvailable"])),
            Column::new("Max Unavailable", "string", "Pods that may be away.", |o, _| {
                count(&o["spec"]["maxUnavailable"])
            }),
            Column::new("Allowed Disruptions", "integer", "Pods that may be evicted now.", |o, _| {
                columns::number(o, "status.disruptionsAllowed")
            }),
            columns::age(),
        ]
        .into(),
        prepare_create: |budget| set(budget, "status", initial_status()),
        validate,
        validate_status,
        ..Kind::namespaced(V1, "PodDisruptionBudget", "poddisruptionbudgets")
    }
}

fn validate(budget: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&budget["spec"], FieldPath::new("spec"));
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        let why = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid(&path, spec.clone(), why));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        validate_count(&spec[field], &path.child(field), &mut errors);
    }
    if !spec["selector"].is_null() {
        errors.extend(labels::validate_label_selector(&spec["selector"], &path.child("selector")));
    }
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    rules::one_of(&mut errors, spec, &path, "unhealthyPodEvictionPolicy", &policies);
    errors
}

/// A number of pods, or a share of them up to 100%.
fn validate_count(value: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    match value {
        Value::Number(number) if number.as_i64().is_some_and(|number| number < 0) => {
            errors.push(FieldError::invalid(path, value.clone(), rules::NOT_NEGATIVE));
        }
        Value::String(text) => {
            let wrong = names::percent(text);
            let is_number = wrong.is_empty();
            errors.extend(wrong.into_iter().map(|why| FieldError::invalid(path, text.as_str(), why)));
            if is_number && meta::intstr::percent(value).is_some_and(|percent| percent > 100) {
                errors.push(FieldError::invalid(path, text.as_str(), "must not be greater than 100%"));
            }
        }
        _ => {}
    }
}

const REASON_BYTES_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 32 * 1024;

fn validate_status(new: &Value, _: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (status, path) = (&new["status"], FieldPath::new("status"));
    let conditions = list(status, "conditions");
    for (number, condition) in conditions.iter().enumerate() {
        let path = path.child("conditions").index(number);
        if conditions[..number].iter().any(|known| known["type"] == condition["type"]) {
            errors.push(FieldError::duplicate(&path.child("type"), condition["type"].clone()));
        }
        validate_condition(&mut errors, condition, &path);
    }
    for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        rules::not_negative(&mut errors, status, &path, key);
    }
    errors
}

const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
    alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  \
    or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
    '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

fn is_reason(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(word)
        && text.chars().all(|c| word(c) || c == ',' || c == ':')
}

fn validate_condition(errors: &mut FieldErrors, condition: &Value, path: &FieldPath) {
    rules::name(errors, &path.child("type"), text(condition, "type"), names::qualified_name);
    let statuses = ["False", "True", "Unknown"];
    if !statuses.contains(&text(condition, "status")) {
        errors.push(FieldError::not_supported(&path.child("status"), text(condition, "status"), &statuses));
    }
    if int(condition, "observedGeneration") < 0 {
        let (shown, why) = (condition["observedGeneration"].clone(), "must be greater than or equal to zero");
        errors.push(FieldError::invalid(&path.child("observedGeneration"), shown, why));
    }
    rules::required(errors, condition, path, "lastTransitionTime");
    rules::required(errors, condition, path, "reason");
    let reason = text(condition, "reason");
    if !reason.is_empty() && !is_reason(reason) {
        errors.push(FieldError::invalid(&path.child("reason"), reason, REASON));
    }
    for (key, max) in [("reason", REASON_BYTES_MAX), ("message", MESSAGE_BYTES_MAX)] {
        if text(condition, key).len() > max {
            errors.push(FieldError::too_long(&path.child(key), max));
        }
    }
}

fn count(value: &Value) -> Value {
    match value {
        Value::Null => "N/A".into(),
        Value::String(percent) => percent.as_str().into(),
        number => number.to_string().into(),
    }
}

fn initial_status() -> Value {
    json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
}

//! Rules that the workload kinds share: replicas, selector, template.

use meta::labels::{self, Selector};
use meta::{FieldError, FieldErrors, FieldPath, intstr, names};
use serde_json::Value;

use crate::core::validate_template;
use crate::json::{has, text};
use crate::rules;

/// Selector and template belong together, and the template's pods restart always.
pub fn selector_and_template(errors: &mut FieldErrors, object: &Value, kind: &str) {
    let spec = &object["spec"];
    if spec["selector"].is_null() {
        errors.push(FieldError::required(&FieldPath::new("spec").child("selector"), ""));
    }
    selector(errors, &spec["selector"], kind);
    template(errors, &spec["template"], &spec["selector"], "ReplicaSet");
}

/// A selector that is there is well formed and selects by something.
pub fn selector(errors: &mut FieldErrors, selector: &Value, kind: &str) {
    let path = FieldPath::new("spec").child("selector");
    if !selector.is_null() {
        errors.extend(labels::validate_label_selector(selector, &path));
        if Selector::from_label_selector(selector).is_some_and(|selector| selector.is_empty()) {
            let why = format!("empty selector is invalid for {kind}");
            errors.push(FieldError::invalid(&path, selector.clone(), why));
        }
    }
}

/// The template's labels match the selector, its own rules hold, and its pods restart always; `kind` is whose pods they
/// are.
pub fn template(errors: &mut FieldErrors, template: &Value, selector: &Value, kind: &str) {
    let path = FieldPath::new("spec").child("template");
    let labels = &template["metadata"]["labels"];
    let matches = Selector::from_label_selector(selector).is_some_and(|selector| selector.matches(labels));
    if !matches {
        let why = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(&path.child("metadata").child("labels"), labels.clone(), why));
    }
    errors.extend(validate_template(template, &path));
    always_restarts(errors, &template["spec"], &path.child("spec"), kind);
}

fn always_restarts(errors: &mut FieldErrors, spec: &Value, path: &FieldPath, kind: &str) {
    match text(spec, "restartPolicy") {
        "Always" | "" => {}
        other if ["Never", "OnFailure"].contains(&other) => {
            errors.push(FieldError::not_supported(&path.child("restartPolicy"), other, &["Always"]));
        }
        _ => {}
    }
    if has(spec, "activeDeadlineSeconds") {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(&path.child("activeDeadlineSeconds"), why));
    }
}

/// The selector of a workload never changes.
pub fn validate_update(new: &Value, old: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let path = FieldPath::new("spec").child("selector");
    rules::immutable(&mut errors, &new["spec"]["selector"], &old["spec"]["selector"], &path);
    errors
}

/// A bound as a number or a percentage, not negative.
pub fn number_or_percent(errors: &mut FieldErrors, value: &Value, path: &FieldPath) {
    match value {
        Value::String(percent) => rules::name(errors, path, percent, names::percent),
        number if number.as_i64().is_some_and(|number| number < 0) => {
            errors.push(FieldError::invalid(path, number.clone(), rules::NOT_NEGATIVE));
        }
        _ => {}
    }
}

/// A percentage is of something that there is.
pub fn at_most_all(errors: &mut FieldErrors, value: &Value, path: &FieldPath) {
    if intstr::percent(value).is_some_and(|percent| percent > 100) {
        errors.push(FieldError::invalid(path, value.clone(), "must not be greater than 100%"));
    }
}

/// Neither a number nor a percentage other than zero.
pub fn is_zero(value: &Value) -> bool {
    value.as_i64().or_else(|| intstr::percent(value)).unwrap_or(0) == 0
}

/// Counts of a status are not negative, and collisions are never taken back.
pub fn status_counts(errors: &mut FieldErrors, new: &Value, old: &Value, keys: &[&str]) {
    let (path, count) = (FieldPath::new("status"), |status: &Value| status["collisionCount"].as_i64());
    for key in keys.iter().chain(&["observedGeneration", "collisionCount"]) {
        rules::not_negative(errors, new, &path, key);
    }
    if count(old).is_some_and(|before| count(new).is_none_or(|now| now < before)) {
        let why = "cannot be decremented";
        errors.push(FieldError::invalid(&path.child("collisionCount"), count(new).unwrap_or(0), why));
    }
}

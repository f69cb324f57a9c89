//! Rules that the workload kinds share: replicas, selector, template.

use meta::labels::{self, Selector};
use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::Value;

use crate::core::validate_template;
use crate::json::{has, text};
use crate::rules;

/// Selector and template belong together, and the template's pods restart always.
pub fn selector_and_template(errors: &mut FieldErrors, object: &Value, kind: &str) {
    let path = FieldPath::new("spec");
    let (spec, selector) = (&object["spec"], &object["spec"]["selector"]);
    if selector.is_null() {
        errors.push(FieldError::required(&path.child("selector"), ""));
    } else {
        errors.extend(labels::validate_label_selector(selector, &path.child("selector")));
        if Selector::from_label_selector(selector).is_some_and(|selector| selector.is_empty()) {
            let why = format!("empty selector is invalid for {kind}");
            errors.push(FieldError::invalid(&path.child("selector"), selector.clone(), why));
        }
    }
    template(errors, spec, &path, selector);
}

/// The template's labels match the selector, its own rules hold, and its pods restart always.
fn template(errors: &mut FieldErrors, spec: &Value, path: &FieldPath, selector: &Value) {
    let path = path.child("template");
    let labels = &spec["template"]["metadata"]["labels"];
    let matches = Selector::from_label_selector(selector).is_some_and(|selector| selector.matches(labels));
    if !matches {
        let why = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(&path.child("metadata").child("labels"), labels.clone(), why));
    }
    errors.extend(validate_template(&spec["template"], &path));
    always_restarts(errors, &spec["template"]["spec"], &path.child("spec"));
}

pub fn always_restarts(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    match text(spec, "restartPolicy") {
        "Always" | "" => {}
        other if ["Never", "OnFailure"].contains(&other) => {
            errors.push(FieldError::not_supported(&path.child("restartPolicy"), other, &["Always"]));
        }
        _ => {}
    }
    if has(spec, "activeDeadlineSeconds") {
        let why = "activeDeadlineSeconds in ReplicaSet is not Supported";
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

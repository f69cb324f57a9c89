//! What a Job's podFailurePolicy may say.

use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use crate::json::{has, list, text};
use crate::rules;

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const CONDITIONS_MAX: usize = 20;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

pub fn validate(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let (rules, path) = (list(spec, "podFailurePolicy.rules"), path.child("rules"));
    if rules.len() > RULES_MAX {
        errors.push(FieldError::too_many(&path, rules.len(), RULES_MAX));
    }
    let template = &spec["template"]["spec"];
    let containers = list(template, "containers").iter().chain(list(template, "initContainers"));
    let containers: Vec<&str> = containers.map(|container| text(container, "name")).collect();
    for (number, rule) in rules.iter().enumerate() {
        validate_rule(errors, spec, rule, &path.index(number), &containers);
    }
}

fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("valid values: [{}]", words.join(" "))
}

/// A word that must be there and be one of a few.
fn word(errors: &mut FieldErrors, parent: &Value, path: &FieldPath, key: &str, words: &[&str]) {
    if text(parent, key).is_empty() {
        errors.push(FieldError::required(&path.child(key), &quoted(words)));
    } else {
        rules::one_of(errors, parent, path, key, words);
    }
}

fn validate_rule(errors: &mut FieldErrors, spec: &Value, rule: &Value, path: &FieldPath, containers: &[&str]) {
    if rule["action"] == "FailIndex" {
        if !has(spec, "backoffLimitPerIndex") {
            let why = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(&path.child("action"), "FailIndex", why));
        }
    } else {
        word(errors, rule, path, "action", &ACTIONS);
    }
    let (codes, conditions) = (&rule["onExitCodes"], list(rule, "onPodConditions"));
    if !codes.is_null() {
        exit_codes(errors, codes, &path.child("onExitCodes"), containers);
    }
    if !conditions.is_empty() {
        pod_conditions(errors, conditions, &path.child("onPodConditions"));
    }
    match (codes.is_null(), conditions.is_empty()) {
        (false, false) => {
            let why = "specifying both OnExitCodes and OnPodConditions is not supported";
            errors.push(FieldError::invalid_unshown(path, why));
        }
        (true, true) => {
            let why = "specifying one of OnExitCodes and OnPodConditions is required";
            errors.push(FieldError::invalid_unshown(path, why));
        }
        _ => {}
    }
}

fn pod_conditions(errors: &mut FieldErrors, conditions: &[Value], path: &FieldPath) {
    if conditions.len() > CONDITIONS_MAX {
        errors.push(FieldError::too_many(path, conditions.len(), CONDITIONS_MAX));
    }
    for (number, pattern) in conditions.iter().enumerate() {
        let path = path.index(number);
        rules::name(errors, &path.child("type"), text(pattern, "type"), names::qualified_name);
        word(errors, pattern, &path, "status", &STATUSES);
    }
}

fn exit_codes(errors: &mut FieldErrors, wanted: &Value, path: &FieldPath, containers: &[&str]) {
    word(errors, wanted, path, "operator", &OPERATORS);
    if let Some(name) = wanted["containerName"].as_str().filter(|name| !containers.contains(name)) {
        let why = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(&path.child("containerName"), name, why));
    }
    let (values, path) = (list(wanted, "values"), path.child("values"));
    let shown = || Value::Array(values.to_vec());
    if values.is_empty() {
        errors.push(FieldError::invalid(&path, wanted["values"].clone(), "at least one value is required"));
    } else if values.len() > EXIT_CODES_MAX {
        errors.push(FieldError::too_many(&path, values.len(), EXIT_CODES_MAX));
    }
    for (number, code) in values.iter().enumerate() {
        if wanted["operator"] == "In" && *code == 0 {
            errors.push(FieldError::invalid(&path.index(number), 0, "must not be 0 for the In operator"));
        }
        if values[..number].contains(code) {
            errors.push(FieldError::duplicate(&path.index(number), code.clone()));
        }
    }
    if !values.is_sorted_by_key(|code| code.as_i64().unwrap_or_default()) {
        errors.push(FieldError::invalid(&path, shown(), "must be ordered"));
    }
}

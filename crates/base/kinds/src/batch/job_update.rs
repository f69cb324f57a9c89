//! What may change of a Job: how much it runs; and of a suspended one where and with what.

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::Value;

use super::job_rules::is_indexed;
use crate::json::{flag, has, int, items, list, remove, set};
use crate::rules;

pub fn validate(new: &Value, old: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let path = FieldPath::new("spec");
    let (spec, old_spec) = (&new["spec"], &old["spec"]);
    completions(&mut errors, spec, old_spec, &path.child("completions"));
    rules::immutable(&mut errors, &spec["selector"], &old_spec["selector"], &path.child("selector"));
    template(&mut errors, spec, old, &path.child("template"));
    for key in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        rules::immutable(&mut errors, &spec[key], &old_spec[key], &path.child(key));
    }
    errors
}

/// Indexed Jobs can grow and shrink, if all indexes may run at once.
fn completions(errors: &mut FieldErrors, new: &Value, old: &Value, path: &FieldPath) {
    if !is_indexed(new) {
        rules::immutable(errors, &new["completions"], &old["completions"], path);
    } else if new["completions"] != old["completions"]
        && !new["completions"].is_null()
        && new["completions"] != new["parallelism"]
    {
        let why = "can only be modified in tandem with spec.parallelism";
        errors.push(FieldError::invalid(path, new["completions"].clone(), why));
    }
}

/// The pods of a suspended Job that has none running.
fn is_open(job: &Value) -> bool {
    let suspended = |condition: &Value| condition["type"] == "Suspended" && condition["status"] == "True";
    let at_rest = !has(job, "status.startTime") || list(job, "status.conditions").iter().any(suspended);
    flag(job, "spec.suspend") && at_rest && int(job, "status.active") == 0
}

fn template(errors: &mut FieldErrors, new: &Value, old: &Value, path: &FieldPath) {
    let (new, mut known) = (&new["template"], old["spec"]["template"].clone());
    if !is_open(old) {
        rules::immutable(errors, new, &known, path);
        return;
    }
    take_scheduling(&mut known, new);
    take_resources(&mut known, new);
    if *new != known {
        errors.push(FieldError::invalid(&path.child("spec"), new["spec"].clone(), "field is immutable"));
    }
}

/// Where pods may run: node affinity, selector, tolerations, gates, and the template's labels and annotations.
fn take_scheduling(known: &mut Value, new: &Value) {
    for key in ["labels", "annotations"] {
        take(known, new, "metadata", key);
    }
    if known["metadata"].as_object().is_some_and(serde_json::Map::is_empty) && new["metadata"].is_null() {
        remove(known, "metadata");
    }
    for key in ["nodeSelector", "tolerations", "schedulingGates"] {
        take(known, new, "spec", key);
    }
    let node = new["spec"]["affinity"]["nodeAffinity"].clone();
    let Some(spec) = crate::json::child(known, "spec") else { return };
    if !node.is_null() || has(spec, "affinity") || has(new, "spec.affinity") {
        if let Some(affinity) = crate::json::ensure(spec, "affinity") {
            if node.is_null() { remove(affinity, "nodeAffinity") } else { set(affinity, "nodeAffinity", node) }
        }
        let empty = spec["affinity"].as_object().is_some_and(serde_json::Map::is_empty);
        if empty && new["spec"]["affinity"].is_null() {
            remove(spec, "affinity");
        }
    }
}

fn take(known: &mut Value, new: &Value, part: &str, key: &str) {
    let value = new[part][key].clone();
    if !value.is_null() {
        if let Some(part) = crate::json::ensure(known, part) {
            set(part, key, value);
        }
    } else if let Some(part) = crate::json::child(known, part) {
        remove(part, key);
    }
}

/// What the containers may use.
fn take_resources(known: &mut Value, new: &Value) {
    let Some(spec) = crate::json::child(known, "spec") else { return };
    for kind in ["containers", "initContainers"] {
        let given = list(&new["spec"], kind);
        if list(spec, kind).len() != given.len() {
            continue;
        }
        for (container, given) in items(spec, kind).zip(given).filter(|(known, new)| known["name"] == new["name"]) {
            match &given["resources"] {
                Value::Null => remove(container, "resources"),
                resources => set(container, "resources", resources.clone()),
            }
        }
    }
}

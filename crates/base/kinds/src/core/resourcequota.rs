//! v1 ResourceQuota: how much a namespace may use.

use std::collections::BTreeSet;

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::{Value, json};

use super::pod_defaults::default_resource_list;
use super::{V1, resource_rules};
use crate::columns;
use crate::json::{child, list, map, set, text};
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["quota"]),
        has_status: true,
        columns: vec![
            columns::name(),
            Column::new("Request", "string", "Used of allowed, requests and counts.", |o, _| used(o, false)),
            Column::new("Limit", "string", "Used of allowed, limits.", |o, _| used(o, true)),
            columns::age(),
        ]
        .into(),
        default,
        validate,
        validate_update,
        validate_status,
        prepare_create: |quota| set(quota, "status", json!({})),
        ..Kind::namespaced(V1, "ResourceQuota", "resourcequotas")
    }
}

fn used(quota: &Value, limits: bool) -> Value {
    let hard = map(quota, "status.hard").into_iter().flatten();
    let of = |(name, hard): (&String, &Value)| {
        let used = quota["status"]["used"][name].as_str().unwrap_or("0");
        format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
    };
    hard.filter(|(name, _)| name.starts_with("limits.") == limits).map(of).collect::<Vec<_>>().join(", ").into()
}

fn default(quota: &mut Value) {
    if let Some(spec) = child(quota, "spec") {
        default_resource_list(spec, "hard");
    }
    if let Some(status) = child(quota, "status") {
        default_resource_list(status, "hard");
        default_resource_list(status, "used");
    }
}

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];
/// Scopes without values.
const PLAIN_SCOPES: [&str; 5] =
    ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];
const EXCLUSIVE: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
const POD_RESOURCES: [&str; 7] =
    ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
const CLAIM_RESOURCES: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];

/// Whether a scope says anything about a resource.
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => CLAIM_RESOURCES.contains(&resource),
        scope if SCOPES.contains(&scope) => POD_RESOURCES.contains(&resource),
        _ => true,
    }
}

fn amounts(errors: &mut FieldErrors, amounts: Option<&serde_json::Map<String, Value>>, path: &FieldPath) {
    for (name, amount) in amounts.into_iter().flatten() {
        let path = path.key(name);
        resource_rules::quota_name(errors, name, &path);
        resource_rules::amount(errors, name, amount, &path);
    }
}

fn validate(quota: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let path = FieldPath::new("spec");
    amounts(&mut errors, map(quota, "spec.hard"), &path.child("hard"));
    let spec = &quota["spec"];
    scopes(&mut errors, spec, &path.child("scopes"));
    if spec["scopeSelector"].is_object() {
        selector(&mut errors, spec, &path.child("scopeSelector").child("matchExpressions"));
    }
    errors
}

/// Limits that a scope has nothing to say about.
fn misfits(spec: &Value, scope: &str) -> usize {
    let names = map(spec, "hard").into_iter().flatten().map(|(name, _)| name);
    names.filter(|name| resource_rules::is_quota_standard(name) && !fits(scope, name)).count()
}

fn exclusive(errors: &mut FieldErrors, spec: &Value, seen: &BTreeSet<&str>, path: &FieldPath) {
    for _ in EXCLUSIVE.iter().filter(|pair| pair.iter().all(|scope| seen.contains(scope))) {
        errors.push(FieldError::invalid(path, spec["scopes"].clone(), "conflicting scopes"));
    }
}

fn scopes(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let all: BTreeSet<&str> = list(spec, "scopes").iter().filter_map(Value::as_str).collect();
    for scope in list(spec, "scopes").iter().filter_map(Value::as_str) {
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(path, spec["scopes"].clone(), "unsupported scope"));
        }
        for _ in 0..misfits(spec, scope) {
            errors.push(FieldError::invalid(path, spec["scopes"].clone(), "unsupported scope applied to resource"));
        }
    }
    exclusive(errors, spec, &all, path);
}

fn selector(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let mut seen = BTreeSet::new();
    for requirement in list(spec, "scopeSelector.matchExpressions") {
        let (scope, operator) = (text(requirement, "scopeName"), text(requirement, "operator"));
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(&path.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in 0..misfits(spec, scope) {
            let why = "unsupported scope applied to resource";
            errors.push(FieldError::invalid(path, spec["scopeSelector"].clone(), why));
        }
        if PLAIN_SCOPES.contains(&scope) && operator != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(FieldError::invalid(&path.child("operator"), operator, why));
        }
        let values = list(requirement, "values");
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(&path.child("values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(&path.child("values"), values.to_vec(), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(FieldError::invalid(&path.child("operator"), operator, "not a valid selector operator")),
        }
        seen.insert(scope);
    }
    exclusive(errors, spec, &seen, path);
}

/// What is counted may change, of whom may not.
fn validate_update(new: &Value, old: &Value) -> FieldErrors {
    let scopes = |quota: &Value| -> BTreeSet<String> {
        list(quota, "spec.scopes").iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if scopes(new) == scopes(old) {
        return Vec::new();
    }
    let path = FieldPath::new("spec").child("scopes");
    vec![FieldError::invalid(&path, new["spec"]["scopes"].clone(), "field is immutable")]
}

fn validate_status(new: &Value, _: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    for part in ["hard", "used"] {
        amounts(&mut errors, map(&new["status"], part), &FieldPath::new("status").child(part));
    }
    errors
}

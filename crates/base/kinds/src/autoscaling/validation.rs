//! What a HorizontalPodAutoscaler may say.

use meta::quantity::Quantity;
use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use crate::json::{int, list, text};
use crate::rules;

const PERIOD_SECONDS_MAX: i64 = 1800;
const WINDOW_SECONDS_MAX: i64 = 3600;
const MIN_REPLICAS: i64 = 1;
const SOURCES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
/// Fields of the sources in the order they are looked at: only the first one's rules are told.
const FIELDS: [&str; 5] = ["object", "external", "pods", "resource", "containerResource"];

pub(super) fn validate(scaler: &Value) -> FieldErrors {
    let (spec, path) = (&scaler["spec"], FieldPath::new("spec"));
    let mut errors = Vec::new();
    let (min, max) = (spec["minReplicas"].as_i64(), int(spec, "maxReplicas"));
    if let Some(min) = min.filter(|min| *min < MIN_REPLICAS) {
        let why = format!("must be greater than or equal to {MIN_REPLICAS}");
        errors.push(FieldError::invalid(&path.child("minReplicas"), min, why));
    }
    let at = path.child("maxReplicas");
    if max == 0 {
        errors.push(FieldError::required(&at, "must be set and greater than 0"));
    } else if max < 0 {
        errors.push(FieldError::invalid(&at, max, "must be greater than or equal to 1"));
    }
    if min.is_some_and(|min| max < min) {
        errors.push(FieldError::invalid(&at, max, "must be greater than or equal to `minReplicas`"));
    }
    let (target, at) = (&spec["scaleTargetRef"], path.child("scaleTargetRef"));
    names_of(&mut errors, target, &at);
    // The one kind of the core group that scales may leave the group out.
    api_version(&mut errors, target, &at, text(target, "kind") == "ReplicationController");
    let metrics = path.child("metrics");
    let specs = list(spec, "metrics");
    for (number, metric) in specs.iter().enumerate() {
        validate_metric(&mut errors, metric, &metrics.index(number));
    }
    if min == Some(0) && !specs.iter().any(|metric| ["Object", "External"].contains(&text(metric, "type"))) {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden(&metrics, why));
    }
    for direction in ["scaleUp", "scaleDown"] {
        validate_rules(&mut errors, &spec["behavior"][direction], &path.child("behavior").child(direction));
    }
    errors
}

fn names_of(errors: &mut FieldErrors, reference: &Value, path: &FieldPath) {
    for field in ["kind", "name"] {
        rules::required_name(errors, &path.child(field), text(reference, field), names::path_segment);
    }
}

fn api_version(errors: &mut FieldErrors, reference: &Value, path: &FieldPath, core_allowed: bool) {
    let version = text(reference, "apiVersion");
    let why = match version.matches('/').count() {
        0 if !core_allowed => "apiVersion must specify API group".to_owned(),
        0 | 1 => return,
        _ => format!("unexpected GroupVersion string: {version}"),
    };
    errors.push(FieldError::invalid(&path.child("apiVersion"), version, why));
}

fn validate_rules(errors: &mut FieldErrors, rules: &Value, path: &FieldPath) {
    if rules.is_null() {
        return;
    }
    let window = path.child("stabilizationWindowSeconds");
    match rules["stabilizationWindowSeconds"].as_i64() {
        Some(seconds) if seconds < 0 => {
            errors.push(FieldError::invalid(&window, seconds, "must be greater than or equal to zero"));
        }
        Some(seconds) if seconds > WINDOW_SECONDS_MAX => {
            let why = format!("must be less than or equal to {WINDOW_SECONDS_MAX}");
            errors.push(FieldError::invalid(&window, seconds, why));
        }
        _ => {}
    }
    let select = text(rules, "selectPolicy");
    let known = ["Disabled", "Max", "Min"];
    if !rules["selectPolicy"].is_null() && !known.contains(&select) {
        errors.push(FieldError::not_supported(&path.child("selectPolicy"), select, &known));
    }
    let (policies, at) = (list(rules, "policies"), path.child("policies"));
    if policies.is_empty() {
        errors.push(FieldError::required(&at, "must specify at least one Policy"));
    }
    for (number, policy) in policies.iter().enumerate() {
        validate_policy(errors, policy, &at.index(number));
    }
    let tolerance = &rules["tolerance"];
    if Quantity::from_value(tolerance).is_ok_and(Quantity::is_negative) {
        errors.push(FieldError::invalid(&path.child("tolerance"), tolerance.clone(), rules::NOT_NEGATIVE));
    }
}

fn validate_policy(errors: &mut FieldErrors, policy: &Value, path: &FieldPath) {
    let known = ["Percent", "Pods"];
    let kind = text(policy, "type");
    if !known.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("type"), kind, &known));
    }
    for field in ["value", "periodSeconds"] {
        let number = int(policy, field);
        if number <= 0 {
            errors.push(FieldError::invalid(&path.child(field), number, "must be greater than zero"));
        }
    }
    let period = int(policy, "periodSeconds");
    if period > PERIOD_SECONDS_MAX {
        let why = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
        errors.push(FieldError::invalid(&path.child("periodSeconds"), period, why));
    }
}

fn validate_metric(errors: &mut FieldErrors, metric: &Value, path: &FieldPath) {
    let (kind, at) = (text(metric, "type"), path.child("type"));
    if kind.is_empty() {
        errors.push(FieldError::required(&at, "must specify a metric source type"));
    }
    let present: Vec<&str> = FIELDS.into_iter().filter(|field| !metric[*field].is_null()).collect();
    let known = SOURCES.contains(&kind);
    if !known {
        errors.push(FieldError::not_supported(&at, kind, &SOURCES));
    }
    if let Some(first) = present.first() {
        validate_source(errors, first, &metric[*first], &path.child(first));
    }
    let expected = FIELDS.into_iter().find(|field| field.eq_ignore_ascii_case(kind));
    match expected {
        Some(field) if metric[field].is_null() => {
            let why = "must populate information for the given metric source";
            errors.push(FieldError::required(&path.child(field), why));
        }
        Some(_) => {}
        None => errors.push(FieldError::not_supported(&at, kind, &SOURCES)),
    }
    if present.len() != 1 {
        let others = present.into_iter().filter(|field| Some(*field) != expected);
        let why = "must populate the given metric source only";
        errors.extend(others.map(|field| FieldError::forbidden(&path.child(field), why)));
    }
}

fn validate_source(errors: &mut FieldErrors, field: &str, source: &Value, path: &FieldPath) {
    let (target, at) = (&source["target"], path.child("target"));
    let missing = |one: &str, other: &str| target[one].is_null() && target[other].is_null();
    let both = |one: &str, other: &str| !target[one].is_null() && !target[other].is_null();
    match field {
        "object" => {
            let (object, described) = (&source["describedObject"], path.child("describedObject"));
            names_of(errors, object, &described);
            api_version(errors, object, &described, true);
            validate_identifier(errors, source, path);
            validate_target(errors, target, &at);
            if missing("value", "averageValue") {
                let why = "must set either a target value or averageValue";
                errors.push(FieldError::required(&at.child("averageValue"), why));
            }
        }
        "external" => {
            validate_identifier(errors, source, path);
            validate_target(errors, target, &at);
            if missing("value", "averageValue") {
                let why = "must set either a target value for metric or a per-pod target";
                errors.push(FieldError::required(&at.child("averageValue"), why));
            }
            if both("value", "averageValue") {
                let why = "may not set both a target value for metric and a per-pod target";
                errors.push(FieldError::forbidden(&at.child("value"), why));
            }
        }
        "pods" => {
            validate_identifier(errors, source, path);
            validate_target(errors, target, &at);
            if target["averageValue"].is_null() {
                let why = "must specify a positive target averageValue";
                errors.push(FieldError::required(&at.child("averageValue"), why));
            }
        }
        _ => {
            validate_resource(errors, field == "containerResource", source, path);
            validate_target(errors, target, &at);
            if missing("averageUtilization", "averageValue") {
                let why = "must set either a target raw value or a target utilization";
                errors.push(FieldError::required(&at.child("averageUtilization"), why));
            }
            if both("averageUtilization", "averageValue") {
                let why = "may not set both a target raw value and a target utilization";
                errors.push(FieldError::forbidden(&at.child("averageValue"), why));
            }
        }
    }
}

fn validate_resource(errors: &mut FieldErrors, of_container: bool, source: &Value, path: &FieldPath) {
    if text(source, "name").is_empty() {
        errors.push(FieldError::required(&path.child("name"), "must specify a resource name"));
    }
    if !of_container {
        return;
    }
    let (container, at) = (text(source, "container"), path.child("container"));
    if container.is_empty() {
        errors.push(FieldError::required(&at, "must specify a container"));
    } else {
        rules::name(errors, &at, container, names::dns_label);
    }
}

fn validate_identifier(errors: &mut FieldErrors, source: &Value, path: &FieldPath) {
    let (name, at) = (text(source, "metric.name"), path.child("metric").child("name"));
    if name.is_empty() {
        errors.push(FieldError::required(&at, "must specify a metric name"));
    } else {
        rules::name(errors, &at, name, names::path_segment);
    }
}

fn validate_target(errors: &mut FieldErrors, target: &Value, path: &FieldPath) {
    let kind = text(target, "type");
    if kind.is_empty() {
        errors.push(FieldError::required(&path.child("type"), "must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        let why = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(&path.child("type"), kind, why));
    }
    for field in ["value", "averageValue"] {
        let amount = Quantity::from_value(&target[field]);
        if amount.is_ok_and(|amount| amount.is_negative() || amount.is_zero()) {
            errors.push(FieldError::invalid(&path.child(field), target[field].clone(), "must be positive"));
        }
    }
    if let Some(percent) = target["averageUtilization"].as_i64().filter(|percent| *percent < 1) {
        errors.push(FieldError::invalid(&path.child("averageUtilization"), percent, "must be greater than 0"));
    }
}

pub(super) fn validate_status(new: &Value, _: &Value) -> FieldErrors {
    let (mut errors, path) = (Vec::new(), FieldPath::new("status"));
    for field in ["currentReplicas", "desiredReplicas"] {
        rules::not_negative(&mut errors, &new["status"], &path, field);
    }
    errors
}

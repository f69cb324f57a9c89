//! apiregistration.k8s.io/v1 APIService: who serves a group and version.

use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{child, fill, has, is_empty, list, set, text};
use crate::kind::{Column, Kind, texts};
use crate::rules;

pub fn kind() -> Kind {
    Kind {
        categories: texts(&["api-extensions"]),
        has_status: true,
        columns: vec![
            columns::name(),
            Column::new("Service", "string", "Who serves it.", |o, _| service(o)),
            Column::new("Available", "string", "Whether it answers.", |o, _| available(o)),
            columns::age(),
        ]
        .into(),
        prepare_create,
        validate,
        validate_name: names::path_segment,
        default,
        ..Kind::cluster(V1, "APIService", "apiservices")
    }
}

fn service(api: &Value) -> Value {
    match &api["spec"]["service"] {
        Value::Null => "Local".into(),
        service => format!("{}/{}", text(service, "namespace"), text(service, "name")).into(),
    }
}

fn available(api: &Value) -> Value {
    let condition = list(api, "status.conditions").iter().find(|condition| condition["type"] == "Available");
    match condition {
        None => "Unknown".into(),
        Some(condition) if condition["status"] == "True" => "True".into(),
        Some(condition) => format!("{} ({})", text(condition, "status"), text(condition, "reason")).into(),
    }
}

/// What this server serves itself is always there.
fn prepare_create(api: &mut Value) {
    if has(api, "spec.service") {
        set(api, "status", json!({}));
        return;
    }
    let condition = json!({"type": "Available", "status": "True", "reason": "Local",
        "message": "Local APIServices are always available",
        "lastTransitionTime": api["metadata"]["creationTimestamp"]});
    set(api, "status", json!({"conditions": [condition]}));
}

fn validate(api: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&api["spec"], FieldPath::new("spec"));
    let (group, version, name) = (text(spec, "group"), text(spec, "version"), text(api, "metadata.name"));
    let wanted = format!("{version}.{group}");
    if name != wanted {
        let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.push(FieldError::invalid(&FieldPath::new("metadata").child("name"), name, why));
    }
    if group.is_empty() && version != "v1" {
        let why = "only v1 may have an empty group and it better be legacy kube";
        errors.push(FieldError::required(&path.child("group"), why));
    }
    if !group.is_empty() {
        rules::name(&mut errors, &path.child("group"), group, names::dns_subdomain);
    }
    rules::name(&mut errors, &path.child("version"), version, names::dns1035_label);
    for (key, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
        let number = spec[key].as_i64().unwrap_or_default();
        if !(1..=max).contains(&number) {
            let why = format!("must be positive and less than {max}");
            errors.push(FieldError::invalid(&path.child(key), number, why));
        }
    }
    if !has(spec, "service") {
        for key in ["caBundle", "insecureSkipTLSVerify"].into_iter().filter(|key| !is_empty(&spec[*key])) {
            let article = if key == "caBundle" { "a caBundle" } else { key };
            let why = format!("local APIServices may not have {article}");
            errors.push(FieldError::invalid(&path.child(key), spec[key].clone(), why));
        }
        return errors;
    }
    let place = path.child("service");
    rules::required(&mut errors, &spec["service"], &place, "namespace");
    rules::required(&mut errors, &spec["service"], &place, "name");
    let port = spec["service"]["port"].as_i64().unwrap_or_default();
    let broken = names::port_number(port);
    if !broken.is_empty() {
        let why = format!("port is not valid: {}", broken.join(", "));
        errors.push(FieldError::invalid(&place.child("port"), port, why));
    }
    if spec["insecureSkipTLSVerify"] == true && !is_empty(&spec["caBundle"]) {
        let why = "may not be true if caBundle is present";
        errors.push(FieldError::invalid(&path.child("insecureSkipTLSVerify"), true, why));
    }
    errors
}

fn default(api: &mut Value) {
    if let Some(service) = child(api, "spec").and_then(|spec| child(spec, "service")) {
        fill(service, "port", 443);
    }
}

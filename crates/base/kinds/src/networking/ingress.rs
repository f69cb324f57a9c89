//! networking.k8s.io/v1 Ingress: HTTP routes into the cluster.

use std::collections::BTreeSet;
use std::net::IpAddr;

use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{list, set, text};
use crate::kind::{Column, Kind, texts};
use crate::rules;

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["ing"]),
        has_status: true,
        has_generation: true,
        columns: vec![
            columns::name(),
            Column::new("Class", "string", "Which controller serves it.", |o, _| {
                columns::or_none(text(o, "spec.ingressClassName"))
            }),
            Column::new("Hosts", "string", "Hosts of its rules.", |o, _| hosts(o).into()),
            Column::new("Address", "string", "Where it is reached.", |o, _| address(o).into()),
            Column::new("Ports", "string", "Ports it opens.", |o, _| {
                if list(o, "spec.tls").is_empty() { "80" } else { "80, 443" }.into()
            }),
            columns::age(),
        ]
        .into(),
        prepare_create: |ingress| set(ingress, "status", json!({"loadBalancer": {}})),
        validate,
        ..Kind::namespaced(V1, "Ingress", "ingresses")
    }
}

fn validate(ingress: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&ingress["spec"], FieldPath::new("spec"));
    if list(spec, "rules").is_empty() && spec["defaultBackend"].is_null() {
        let why = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(&path, spec["rules"].clone(), why));
    }
    if !spec["defaultBackend"].is_null() {
        validate_backend(&spec["defaultBackend"], &path.child("defaultBackend"), &mut errors);
    }
    for (i, rule) in list(spec, "rules").iter().enumerate() {
        validate_rule(rule, &path.child("rules").index(i), &mut errors);
    }
    let class = text(spec, "ingressClassName");
    if !class.is_empty() {
        rules::name(&mut errors, &path.child("ingressClassName"), class, names::dns_subdomain);
    }
    errors
}

fn validate_rule(rule: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let host = text(rule, "host");
    if host.parse::<IpAddr>().is_ok() {
        let why = "must be a DNS name, not an IP address";
        errors.push(FieldError::invalid(&path.child("host"), host, why));
    } else if host.contains('*') {
        rules::name(errors, &path.child("host"), host, names::wildcard_subdomain);
    } else if !host.is_empty() {
        rules::name(errors, &path.child("host"), host, names::dns_subdomain);
    }
    if rule["http"].is_null() {
        return;
    }
    let paths = path.child("http").child("paths");
    if list(rule, "http.paths").is_empty() {
        errors.push(FieldError::required(&paths, ""));
    }
    for (i, route) in list(rule, "http.paths").iter().enumerate() {
        let path = paths.index(i);
        validate_backend(&route["backend"], &path.child("backend"), errors);
        let (given, kind) = (text(route, "path"), text(route, "pathType"));
        match kind {
            "" => errors.push(FieldError::required(&path.child("pathType"), "pathType must be specified")),
            "Exact" | "Prefix" if !given.starts_with('/') => {
                errors.push(FieldError::invalid(&path.child("path"), given, "must be an absolute path"));
            }
            "ImplementationSpecific" if !given.is_empty() && !given.starts_with('/') => {
                errors.push(FieldError::invalid(&path.child("path"), given, "must be an absolute path"));
            }
            "Exact" | "Prefix" | "ImplementationSpecific" => {}
            other => {
                let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
                errors.push(FieldError::not_supported(&path.child("pathType"), other, &kinds));
            }
        }
    }
}

/// A backend is a service with one port, or another object.
fn validate_backend(backend: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    match (service.is_null(), resource.is_null()) {
        (false, false) => {
            let why = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(path, "", why));
        }
        (true, true) => errors.push(FieldError::required(path, "resource or service backend is required")),
        (true, false) => {}
        (false, true) => {
            let path = path.child("service");
            rules::required_name(errors, &path.child("name"), text(service, "name"), names::dns1035_label);
            let (name, number) = (text(service, "port.name"), service["port"]["number"].as_i64().unwrap_or(0));
            match (name.is_empty(), number == 0) {
                (false, false) => {
                    let why = "cannot set both port name & port number";
                    errors.push(FieldError::invalid(&path, "", why));
                }
                (true, true) => {
                    errors.push(FieldError::required(&path, "port name or number is required"));
                }
                (false, true) => rules::name(errors, &path.child("port").child("name"), name, names::port_name),
                (true, false) => rules::number_port(errors, &path.child("port").child("number"), number),
            }
        }
    }
}

const HOSTS_MAX: usize = 3;
const ADDRESS_WIDTH: usize = 16;

fn hosts(ingress: &Value) -> String {
    let rules = list(ingress, "spec.rules");
    let hosts: Vec<&str> = rules.iter().map(|rule| text(rule, "host")).filter(|host| !host.is_empty()).collect();
    match hosts.len() {
        0 => "*".to_owned(),
        count if count > HOSTS_MAX => format!("{} + {} more...", hosts[..HOSTS_MAX].join(","), rules.len() - HOSTS_MAX),
        _ => hosts.join(","),
    }
}

fn address(ingress: &Value) -> String {
    let points = list(ingress, "status.loadBalancer.ingress").iter();
    let points = points.map(|p| if text(p, "ip").is_empty() { text(p, "hostname") } else { text(p, "ip") });
    let points: BTreeSet<&str> = points.filter(|point| !point.is_empty()).collect();
    let mut joined = points.into_iter().collect::<Vec<_>>().join(",");
    if joined.len() > ADDRESS_WIDTH {
        joined.truncate(ADDRESS_WIDTH - 3);
        joined.push_str("...");
    }
    joined
}

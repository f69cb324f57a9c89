//! discovery.k8s.io/v1 EndpointSlice: a slice of the addresses behind a Service.

use serde_json::{Value, json};
use std::collections::BTreeSet;

use meta::{FieldError, FieldErrors, FieldPath, names};

use super::V1;
use crate::json::{fill, items, list, text};
use crate::kind::{Column, Kind};
use crate::{columns, rules};

pub fn kind() -> Kind {
    Kind {
        has_generation: true,
        columns: vec![
            columns::name(),
            Column::new("AddressType", "string", "What its addresses are.", |o, _| text(o, "addressType").into()),
            Column::new("Ports", "string", "Ports of all its endpoints.", |o, _| ports(o)),
            Column::new("Endpoints", "string", "Addresses.", |o, _| endpoints(o)),
            columns::age(),
        ]
        .into(),
        default,
        validate,
        validate_update,
        ..Kind::namespaced(V1, "EndpointSlice", "endpointslices")
    }
}

const SHOWN_MAX: usize = 3;

fn ports(slice: &Value) -> Value {
    let port = |port: &Value| match (&port["port"], text(port, "name")) {
        (Value::Number(number), _) => number.to_string(),
        (_, "") => "*".to_owned(),
        (_, name) => name.to_owned(),
    };
    columns::with_more(&list(slice, "ports").iter().map(port).collect::<Vec<_>>(), SHOWN_MAX).into()
}

fn endpoints(slice: &Value) -> Value {
    let addresses = list(slice, "endpoints").iter().flat_map(|endpoint| list(endpoint, "addresses"));
    let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
    columns::with_more(&addresses, SHOWN_MAX).into()
}

fn default(slice: &mut Value) {
    for port in items(slice, "ports") {
        fill(port, "name", "");
        fill(port, "protocol", "TCP");
    }
    items(slice, "endpoints").for_each(|endpoint| fill(endpoint, "conditions", json!({})));
}

const PORTS_MAX: usize = 100;
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;

fn validate(slice: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let root = FieldPath::new("addressType");
    match text(slice, "addressType") {
        "" => errors.push(FieldError::required(&root, "")),
        "IPv4" | "IPv6" | "FQDN" => {}
        other => errors.push(FieldError::not_supported(&root, other, &["FQDN", "IPv4", "IPv6"])),
    }
    ports_rules(&mut errors, list(slice, "ports"));
    let path = FieldPath::new("endpoints");
    let endpoints = list(slice, "endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(FieldError::too_many(&path, endpoints.len(), ENDPOINTS_MAX));
        return errors;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(i).child("addresses");
        let addresses = list(endpoint, "addresses");
        if addresses.is_empty() {
            errors.push(FieldError::required(&path, "must contain at least 1 address"));
        } else if addresses.len() > ADDRESSES_MAX {
            errors.push(FieldError::too_many(&path, addresses.len(), ADDRESSES_MAX));
        }
        for (j, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
            match text(slice, "addressType") {
                "IPv4" | "IPv6" => rules::endpoint_ip(&mut errors, &path.index(j), address),
                "FQDN" => rules::name(&mut errors, &path.index(j), address, names::dns_subdomain),
                _ => {}
            }
        }
    }
    errors
}

fn ports_rules(errors: &mut FieldErrors, ports: &[Value]) {
    let path = FieldPath::new("ports");
    if ports.len() > PORTS_MAX {
        errors.push(FieldError::too_many(&path, ports.len(), PORTS_MAX));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            rules::name(errors, &path.child("name"), name, names::dns_label);
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        rules::one_of(errors, port, &path, "protocol", &["SCTP", "TCP", "UDP"]);
    }
}

fn validate_update(new: &Value, old: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    rules::immutable(&mut errors, &new["addressType"], &old["addressType"], &FieldPath::new("addressType"));
    errors
}

//! networking.k8s.io/v1 NetworkPolicy: which traffic pods accept and send.

use meta::{FieldError, FieldErrors, FieldPath, labels, names};
use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{child, fill, items, list, set, text};
use crate::kind::{Column, Kind, texts};
use crate::rules;

const TYPES: [&str; 2] = ["Ingress", "Egress"];

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["netpol"]),
        has_generation: true,
        columns: vec![
            columns::name(),
            Column::new("Pod-Selector", "string", "The pods it is about.", |o, _| {
                columns::selector(&o["spec"]["podSelector"])
            }),
            columns::age(),
        ]
        .into(),
        default,
        validate,
        ..Kind::namespaced(V1, "NetworkPolicy", "networkpolicies")
    }
}

fn default(policy: &mut Value) {
    let Some(spec) = child(policy, "spec") else { return };
    for direction in ["ingress", "egress"] {
        for rule in items(spec, direction) {
            items(rule, "ports").for_each(|port| fill(port, "protocol", "TCP"));
        }
    }
    if list(spec, "policyTypes").is_empty() {
        let egress = !list(spec, "egress").is_empty();
        set(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
    }
}

fn validate(policy: &Value) -> FieldErrors {
    let (spec, path) = (&policy["spec"], FieldPath::new("spec"));
    let mut errors = Vec::new();
    if !spec["podSelector"].is_null() {
        errors.extend(labels::validate_label_selector(&spec["podSelector"], &path.child("podSelector")));
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (at, rule) in list(spec, direction).iter().enumerate() {
            let path = path.child(direction).index(at);
            for (at, port) in list(rule, "ports").iter().enumerate() {
                validate_port(port, &path.child("ports").index(at), &mut errors);
            }
            for (at, peer) in list(rule, peers).iter().enumerate() {
                validate_peer(peer, &path.child(peers).index(at), &mut errors);
            }
        }
    }
    let (types, path) = (list(spec, "policyTypes"), path.child("policyTypes"));
    if types.len() > TYPES.len() {
        let why = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid(&path, spec["policyTypes"].clone(), why));
        return errors;
    }
    for (at, kind) in types.iter().enumerate() {
        let kind = kind.as_str().unwrap_or_default();
        if !TYPES.contains(&kind) {
            errors.push(FieldError::not_supported(&path.index(at), kind, &TYPES));
        }
    }
    errors
}

fn validate_port(port: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    rules::one_of(errors, port, path, "protocol", &["TCP", "UDP", "SCTP"]);
    let end = port["endPort"].as_i64();
    let mut refuse_end = |shown: i64, why: &str| errors.push(FieldError::invalid(&path.child("endPort"), shown, why));
    match (&port["port"], end) {
        (Value::Null, Some(end)) => refuse_end(end, "may not be specified when `port` is not specified"),
        (Value::String(_), Some(end)) => refuse_end(end, "may not be specified when `port` is non-numeric"),
        (Value::Number(start), Some(end)) => {
            let start = start.as_i64().unwrap_or_default();
            if end < start {
                refuse_end(start, "must be greater than or equal to `port`");
            }
            rules::number_port(errors, &path.child("endPort"), end);
        }
        _ => {}
    }
    match &port["port"] {
        Value::Null => {}
        Value::String(name) => rules::name(errors, &path.child("port"), name, names::port_name),
        number => rules::number_port(errors, &path.child("port"), number.as_i64().unwrap_or_default()),
    }
}

/// A peer is a block of addresses, or chosen by labels of pods, of namespaces, or of both.
fn validate_peer(peer: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let given = |field: &&str| !peer[*field].is_null();
    let selectors: Vec<&str> = ["podSelector", "namespaceSelector"].into_iter().filter(given).collect();
    for field in &selectors {
        errors.extend(labels::validate_label_selector(&peer[*field], &path.child(field)));
    }
    let block = &peer["ipBlock"];
    match (block.is_null(), selectors.is_empty()) {
        (true, true) => errors.push(FieldError::required(path, "must specify a peer")),
        (true, false) => {}
        (false, alone) => {
            validate_block(block, &path.child("ipBlock"), errors);
            if !alone {
                errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
            }
        }
    }
}

fn validate_block(block: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let range = text(block, "cidr");
    if range.is_empty() {
        errors.push(FieldError::required(&path.child("cidr"), ""));
        return;
    }
    let Some(outer) = rules::cidr(range) else {
        errors.push(FieldError::invalid(&path.child("cidr"), range, rules::CIDR));
        return;
    };
    for (at, except) in list(block, "except").iter().enumerate() {
        let (path, except) = (path.child("except").index(at), except.as_str().unwrap_or_default());
        match rules::cidr(except) {
            None => errors.push(FieldError::invalid(&path, except, rules::CIDR)),
            Some(inner) if !rules::is_strict_subset(inner, outer) => {
                errors.push(FieldError::invalid(&path, except, "must be a strict subset of `cidr`"));
            }
            Some(_) => {}
        }
    }
}

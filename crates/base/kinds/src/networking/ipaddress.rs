//! networking.k8s.io/v1 IPAddress: an address taken from a service range.

use std::net::IpAddr;

use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use super::V1;
use crate::columns;
use crate::json::text;
use crate::kind::{Column, Kind, texts};
use crate::rules;

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["ip"]),
        columns: vec![
            columns::name(),
            Column::new("ParentRef", "string", "Who uses the address.", |o, _| parent(o)),
            columns::age(),
        ]
        .into(),
        validate_name: canonical_ip,
        validate,
        validate_update: |new, old| {
            let mut errors = Vec::new();
            let path = FieldPath::new("spec").child("parentRef");
            rules::immutable(&mut errors, &new["spec"]["parentRef"], &old["spec"]["parentRef"], &path);
            errors
        },
        ..Kind::cluster(V1, "IPAddress", "ipaddresses")
    }
}

/// The name is the address itself, in its one canonical form.
fn canonical_ip(name: &str) -> Vec<String> {
    let parsed = name.parse::<IpAddr>();
    if parsed.is_ok_and(|ip| ip.to_string() == name) {
        return Vec::new();
    }
    vec!["must be a valid IP address in canonical form, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
}

fn validate(address: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let path = FieldPath::new("spec").child("parentRef");
    let parent = &address["spec"]["parentRef"];
    if parent.is_null() {
        errors.push(FieldError::required(&path, ""));
        return errors;
    }
    let group = text(parent, "group");
    if !group.is_empty() {
        rules::name(&mut errors, &path.child("group"), group, names::dns_subdomain);
    }
    rules::required_name(&mut errors, &path.child("resource"), text(parent, "resource"), names::path_segment);
    rules::required_name(&mut errors, &path.child("name"), text(parent, "name"), names::path_segment);
    let namespace = text(parent, "namespace");
    if !namespace.is_empty() {
        rules::name(&mut errors, &path.child("namespace"), namespace, names::path_segment);
    }
    errors
}

fn parent(address: &Value) -> Value {
    let parent = &address["spec"]["parentRef"];
    if parent.is_null() {
        return "<none>".into();
    }
    let (group, resource) = (text(parent, "group"), text(parent, "resource"));
    let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let parts = [resource.to_lowercase(), text(parent, "namespace").to_owned(), text(parent, "name").to_owned()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/").into()
}

//! Rules of a Service.

use std::collections::BTreeSet;

use meta::{FieldError, FieldErrors, FieldPath, labels, names};
use serde_json::{Value, json};

use crate::json::{has, int, is_empty, list, text};
use crate::rules;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub fn validate(service: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let path = FieldPath::new("spec");
    let spec = &service["spec"];
    let kind = text(spec, "type");
    let headless = list(spec, "clusterIPs").first().is_some_and(|ip| ip == "None") || spec["clusterIP"] == "None";
    if list(spec, "ports").is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required(&path.child("ports"), ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid(&path.child("clusterIPs").index(0), "None", why));
        }
        "ExternalName" => {
            if !is_empty(&spec["clusterIP"]) || !list(spec, "clusterIPs").is_empty() {
                let why = "may not be set for ExternalName services";
                errors.push(FieldError::forbidden(&path.child("clusterIPs"), why));
            }
            let name = text(spec, "externalName").trim_end_matches('.');
            rules::required_name(&mut errors, &path.child("externalName"), name, names::dns_subdomain);
        }
        _ => {}
    }
    ports(&mut errors, spec, &path.child("ports"), headless);
    errors.extend(labels::validate_labels(&spec["selector"], &path.child("selector")));
    rules::one_of(&mut errors, spec, &path, "sessionAffinity", &["ClientIP", "None"]);
    if let Some(seconds) = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].as_i64()
        && !(1..=86_400).contains(&seconds)
    {
        let path = path.child("sessionAffinityConfig").child("clientIP").child("timeoutSeconds");
        errors.push(FieldError::invalid(&path, seconds, "must be greater than 0 and less than 86400"));
    }
    for (i, ip) in list(spec, "clusterIPs").iter().filter_map(Value::as_str).enumerate().filter(|(_, ip)| *ip != "None")
    {
        rules::ip(&mut errors, &path.child("clusterIPs").index(i), ip);
    }
    for (i, ip) in list(spec, "externalIPs").iter().filter_map(Value::as_str).enumerate() {
        rules::endpoint_ip(&mut errors, &path.child("externalIPs").index(i), ip);
    }
    rules::one_of(&mut errors, spec, &path, "type", &TYPES);
    traffic(&mut errors, spec, &path);
    errors
}

fn traffic(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let kind = text(spec, "type");
    let external = matches!(kind, "NodePort" | "LoadBalancer") || !list(spec, "externalIPs").is_empty();
    if has(spec, "externalTrafficPolicy") && !external {
        let why = "may only be set for externally-accessible services";
        let policy = text(spec, "externalTrafficPolicy");
        errors.push(FieldError::invalid(&path.child("externalTrafficPolicy"), policy, why));
    } else {
        rules::one_of(errors, spec, path, "externalTrafficPolicy", &["Cluster", "Local"]);
    }
    rules::one_of(errors, spec, path, "internalTrafficPolicy", &["Cluster", "Local"]);
    if has(spec, "allocateLoadBalancerNodePorts") && kind != "LoadBalancer" {
        let why = "may only be used when `type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden(&path.child("allocateLoadBalancerNodePorts"), why));
    }
    if has(spec, "loadBalancerClass") && kind != "LoadBalancer" {
        let why = "may only be used when `type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden(&path.child("loadBalancerClass"), why));
    }
}

fn ports(errors: &mut FieldErrors, spec: &Value, path: &FieldPath, headless: bool) {
    let all = list(spec, "ports");
    let mut seen = BTreeSet::new();
    for (i, port) in all.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if name.is_empty() && all.len() > 1 {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if !name.is_empty() {
            rules::name(errors, &path.child("name"), name, names::dns_label);
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
        rules::number_port(errors, &path.child("port"), int(port, "port"));
        rules::one_of(errors, port, &path, "protocol", &["SCTP", "TCP", "UDP"]);
        if !(headless && is_empty(&port["targetPort"])) {
            rules::port_or_name(errors, &path.child("targetPort"), &port["targetPort"]);
        }
    }
    if text(spec, "type") == "ClusterIP" {
        for i in (0..all.len()).filter(|i| int(&all[*i], "nodePort") != 0) {
            let why = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(&path.index(i).child("nodePort"), why));
        }
    }
    let mut places = BTreeSet::new();
    for (i, port) in all.iter().enumerate() {
        if !places.insert((text(port, "protocol"), int(port, "port"))) {
            let shown = json!({"Name": "", "Protocol": port["protocol"], "AppProtocol": null, "Port": port["port"],
                "TargetPort": 0, "NodePort": 0});
            errors.push(FieldError::duplicate(&path.index(i), shown));
        }
    }
}

/// The cluster's addresses of a Service stay as they are while its type needs them.
pub fn validate_update(new: &Value, old: &Value) -> FieldErrors {
    let (now, then) = (&new["spec"], &old["spec"]);
    let external = |spec: &Value| spec["type"] == "ExternalName";
    let (first, before) = (&list(now, "clusterIPs").first(), &list(then, "clusterIPs").first());
    if external(now) || external(then) || before.is_none() || first == before {
        return Vec::new();
    }
    let path = FieldPath::new("spec").child("clusterIPs").index(0);
    vec![FieldError::invalid(&path, now["clusterIPs"].clone(), "may not change once set")]
}

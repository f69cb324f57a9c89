//! v1 Service: a stable address and name for a set of pods.

use meta::Gvk;
use serde_json::{Value, json};

use std::collections::BTreeSet;

use super::V1;
use crate::columns;
use crate::json::{child, fill, fill_empty, has, int, items, list, remove, set, text};
use crate::kind::{Column, Kind, SelectableField, Subresource, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["svc"]),
        categories: texts(&["all"]),
        has_status: true,
        subresources: vec![Subresource::speaking(
            "proxy",
            Gvk::new("", "v1", "ServiceProxyOptions"),
            &["create", "delete", "get", "patch", "update"],
        )]
        .into(),
        columns: vec![
            columns::name(),
            Column::new("Type", "string", "How it is reached.", |o, _| text(o, "spec.type").into()),
            Column::new("Cluster-IP", "string", "Its address in the cluster.", |o, _| cluster_ip(o)),
            Column::new("External-IP", "string", "Its addresses outside the cluster.", |o, _| external_ip(o)),
            Column::new("Port(s)", "string", "Ports, with the node port where there is one.", |o, _| ports(o)),
            columns::age(),
            Column::new("Selector", "string", "Selects the pods behind it.", |o, _| {
                columns::labels(&o["spec"]["selector"])
            })
            .wide(),
        ]
        .into(),
        default,
        prepare_create,
        validate_name: meta::names::dns_label,
        selectable_fields: vec![
            SelectableField { path: "spec.clusterIP".into(), read: |o| text(o, "spec.clusterIP").to_owned() },
            SelectableField { path: "spec.type".into(), read: |o| text(o, "spec.type").to_owned() },
        ]
        .into(),
        validate: super::service_rules::validate,
        validate_update: super::service_rules::validate_update,
        ..Kind::namespaced(V1, "Service", "services")
    }
}

const LOAD_BALANCER_WIDTH: usize = 16;
const AFFINITY_SECONDS: i64 = 10_800;

fn cluster_ip(service: &Value) -> Value {
    columns::or_none(list(service, "spec.clusterIPs").first().and_then(Value::as_str).unwrap_or_default())
}

fn load_balancer(service: &Value) -> String {
    let ingress = list(service, "status.loadBalancer.ingress").iter();
    let addresses = ingress.map(|i| if text(i, "ip").is_empty() { text(i, "hostname") } else { text(i, "ip") });
    let addresses: BTreeSet<&str> = addresses.filter(|address| !address.is_empty()).collect();
    let mut joined = addresses.into_iter().collect::<Vec<_>>().join(",");
    if joined.len() > LOAD_BALANCER_WIDTH {
        joined.truncate(LOAD_BALANCER_WIDTH - 3);
        joined.push_str("...");
    }
    joined
}

fn external_ip(service: &Value) -> Value {
    let external: Vec<&str> = list(service, "spec.externalIPs").iter().filter_map(Value::as_str).collect();
    match text(service, "spec.type") {
        "ClusterIP" | "NodePort" => columns::or_none(&external.join(",")),
        "LoadBalancer" => {
            let balancer = load_balancer(service);
            let all: Vec<&str> = [balancer.as_str()].into_iter().filter(|b| !b.is_empty()).chain(external).collect();
            if all.is_empty() { "<pending>".into() } else { all.join(",").into() }
        }
        "ExternalName" => text(service, "spec.externalName").into(),
        _ => "<unknown>".into(),
    }
}

fn ports(service: &Value) -> Value {
    let port = |port: &Value| match (int(port, "port"), int(port, "nodePort"), text(port, "protocol")) {
        (number, 0, protocol) => format!("{number}/{protocol}"),
        (number, node, protocol) => format!("{number}:{node}/{protocol}"),
    };
    columns::or_none(&list(service, "spec.ports").iter().map(port).collect::<Vec<_>>().join(","))
}

fn default(service: &mut Value) {
    let Some(spec) = child(service, "spec") else { return };
    fill_empty(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => remove(spec, "sessionAffinityConfig"),
        "ClientIP" if !has(spec, "sessionAffinityConfig.clientIP.timeoutSeconds") => {
            set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}));
        }
        _ => {}
    }
    fill_empty(spec, "type", "ClusterIP");
    for port in items(spec, "ports") {
        fill_empty(port, "protocol", "TCP");
        let number = port["port"].clone();
        fill_empty(port, "targetPort", number);
    }
    let kind = text(spec, "type").to_owned();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    if external || (kind == "ClusterIP" && !list(spec, "externalIPs").is_empty()) {
        fill_empty(spec, "externalTrafficPolicy", "Cluster");
    }
    if external || kind == "ClusterIP" {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
        if let Some(balancer) = child(service, "status").and_then(|status| child(status, "loadBalancer")) {
            for ingress in items(balancer, "ingress").filter(|ingress| !text(ingress, "ip").is_empty()) {
                fill(ingress, "ipMode", "VIP");
            }
        }
    }
}

fn prepare_create(service: &mut Value) {
    set(service, "status", json!({"loadBalancer": {}}));
}

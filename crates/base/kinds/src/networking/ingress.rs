//! networking.k8s.io/v1 Ingress: HTTP routes into the cluster.

use serde_json::{Value, json};

use std::collections::BTreeSet;

use super::V1;
use crate::columns;
use crate::json::{list, set, text};
use crate::kind::{Column, Kind, texts};

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
        ..Kind::namespaced(V1, "Ingress", "ingresses")
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

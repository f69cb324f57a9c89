//! networking.k8s.io/v1 NetworkPolicy: which traffic pods accept and send.

use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{child, fill, items, list, set};
use crate::kind::{Column, Kind, texts};

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

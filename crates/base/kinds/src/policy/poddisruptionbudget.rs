//! policy/v1 PodDisruptionBudget: how many pods an eviction may take away.

use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::set;
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["pdb"]),
        has_status: true,
        has_generation: true,
        columns: vec![
            columns::name(),
            Column::new("Min Available", "string", "Pods that must stay.", |o, _| count(&o["spec"]["minAvailable"])),
            Column::new("Max Unavailable", "string", "Pods that may be away.", |o, _| {
                count(&o["spec"]["maxUnavailable"])
            }),
            Column::new("Allowed Disruptions", "integer", "Pods that may be evicted now.", |o, _| {
                columns::number(o, "status.disruptionsAllowed")
            }),
            columns::age(),
        ]
        .into(),
        prepare_create: |budget| set(budget, "status", initial_status()),
        ..Kind::namespaced(V1, "PodDisruptionBudget", "poddisruptionbudgets")
    }
}

fn count(value: &Value) -> Value {
    match value {
        Value::Null => "N/A".into(),
        Value::String(percent) => percent.as_str().into(),
        number => number.to_string().into(),
    }
}

fn initial_status() -> Value {
    json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
}

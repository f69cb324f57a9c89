//! The kinds of the metrics.k8s.io group: worked out when they are asked for, never stored.

mod nodemetrics;
mod podmetrics;

use serde_json::Value;

use crate::kind::{Column, Kind};

const V1BETA1: (&str, &str) = ("metrics.k8s.io", "v1beta1");

pub fn kinds() -> Vec<Kind> {
    vec![nodemetrics::kind(), podmetrics::kind()]
}

/// Name, use of CPU and memory, and the time over which it was measured.
fn columns(cpu: fn(&Value, i64) -> Value, memory: fn(&Value, i64) -> Value) -> Vec<Column> {
    vec![
        crate::columns::name(),
        Column::new("cpu", "string", "CPU in use.", cpu),
        Column::new("memory", "string", "Memory in use that cannot be given back at once.", memory),
        Column::new("Window", "string", "Time over which the use was measured.", |o, _| o["window"].clone()),
    ]
}

//! The kinds of the metrics.k8s.io group: worked out when they are asked for, never stored.

mod nodemetrics;
mod podmetrics;

use serde_json::{Value, json};

use crate::kind::{Column, Kind};

const V1BETA1: (&str, &str) = ("metrics.k8s.io", "v1beta1");

pub fn kinds() -> Vec<Kind> {
    vec![nodemetrics::kind(), podmetrics::kind()]
}

/// The schema of a measurement, with the part that differs between the two kinds.
fn schema(about: &str, part: &str, of: Value) -> Value {
    let text = |about: &str| json!({"type": "string", "description": about});
    let mut timestamp = text("The end of the time over which the use was measured.");
    timestamp["format"] = "date-time".into();
    json!({"type": "object", "description": about, "required": ["timestamp", "window", part], "properties": {
        "timestamp": timestamp, "window": text("The time over which the use was measured."), part: of}})
}

/// The schema of what is in use: quantities by resource.
fn usage() -> Value {
    json!({"type": "object", "description": "What is in use, by resource: cpu and memory.",
        "additionalProperties": {"type": "string"}})
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

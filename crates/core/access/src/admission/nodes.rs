//! A new node takes no pods until its conditions are known to be good.

use serde_json::{Value, json};

use super::json::{array, object};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Adds the taint that the node lifecycle controller takes away once the node is ready.
pub fn taint_new_node(node: &mut Value) {
    let Some(taints) = object(node, "spec").and_then(|spec| array(spec, "taints")) else { return };
    if !taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule") {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

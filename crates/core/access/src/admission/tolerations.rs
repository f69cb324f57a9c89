//! Pods stay for a while on a node that stops answering, before they are evicted.

use serde_json::{Value, json};

use super::json::{array, list, object, text};

const SECONDS: i64 = 300;
const KEYS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

fn covers(toleration: &Value, key: &str) -> bool {
    let own = text(toleration, "key");
    (own.is_empty() || own == key) && matches!(text(toleration, "effect"), "" | "NoExecute")
}

/// Tolerates both outage taints for five minutes, unless the pod says something about them itself.
pub fn default_seconds(pod: &mut Value) {
    let own = list(&pod["spec"], "tolerations");
    let missing = KEYS.map(|key| !own.iter().any(|toleration| covers(toleration, key)));
    if missing == [false, false] {
        return;
    }
    let Some(tolerations) = object(pod, "spec").and_then(|spec| array(spec, "tolerations")) else { return };
    for (key, _) in KEYS.iter().zip(missing).filter(|(_, missing)| *missing) {
        tolerations
            .push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
    }
}

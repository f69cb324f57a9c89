//! metrics.k8s.io/v1beta1 PodMetrics: what the containers of a pod use now.

use meta::quantity::Quantity;
use serde_json::{Value, json};

use super::V1BETA1;
use crate::json::list;
use crate::kind::{Kind, Verbs};

pub fn kind() -> Kind {
    Kind {
        verbs: Verbs::ReadOnly,
        singular: "".into(),
        schema: Some(schema),
        columns: super::columns(|o, _| sum(o, "cpu"), |o, _| sum(o, "memory")).into(),
        ..Kind::namespaced(V1BETA1, "PodMetrics", "pods")
    }
}

fn schema() -> Value {
    let container = json!({"type": "object", "required": ["name", "usage"], "properties": {
        "name": {"type": "string", "description": "The name of the container."}, "usage": super::usage()}});
    let containers = json!({"type": "array", "description": "What each container uses.", "items": container});
    super::schema("What the containers of a pod use now.", "containers", containers)
}

/// All containers' use of a resource together.
fn sum(object: &Value, resource: &str) -> Value {
    let used = list(object, "containers").iter().map(|c| c["usage"][resource].as_str().unwrap_or_default().parse());
    let used: Vec<Quantity> = used.flatten().collect();
    used.into_iter().reduce(|total, next| total + next).map_or(Value::Null, |total| total.to_string().into())
}

//! autoscaling/v2 HorizontalPodAutoscaler: scales a workload by its metrics.

use serde_json::{Value, json};

use super::V2;
use crate::json::{child, ensure, fill, list, set};
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["hpa"]),
        categories: texts(&["all"]),
        has_status: true,
        columns: super::hpa_columns::columns().into(),
        default,
        prepare_create: |o| set(o, "status", json!({"currentMetrics": null, "desiredReplicas": 0})),
        validate: super::validation::validate,
        validate_status: super::validation::validate_status,
        ..Kind::namespaced(V2, "HorizontalPodAutoscaler", "horizontalpodautoscalers")
    }
}

fn default(object: &mut Value) {
    super::drop_carried(object);
    let Some(spec) = child(object, "spec") else { return };
    fill(spec, "minReplicas", 1);
    if list(spec, "metrics").is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        set(spec, "metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
    let Some(behavior) = child(spec, "behavior") else { return };
    let up = json!([
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ]);
    if let Some(rules) = ensure(behavior, "scaleUp") {
        fill(rules, "stabilizationWindowSeconds", 0);
        fill(rules, "selectPolicy", "Max");
        fill(rules, "policies", up);
    }
    if let Some(rules) = ensure(behavior, "scaleDown") {
        fill(rules, "selectPolicy", "Max");
        fill(rules, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
    }
}

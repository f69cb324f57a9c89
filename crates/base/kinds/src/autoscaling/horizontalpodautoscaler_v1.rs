//! autoscaling/v1 HorizontalPodAutoscaler: the view that knows one metric, CPU; the others travel in an annotation.

use meta::Gvk;
use serde_json::{Value, json};

use super::V1;
use crate::json::{child, ensure, list, remove, set, text};
use crate::kind::{Kind, StoredAs, texts};

/// Metrics that this version has no field for, in this version's own shape.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
/// Scaling behaviour, which this version has no field for.
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["hpa"]),
        categories: texts(&["all"]),
        has_status: true,
        stored_as: Some(StoredAs {
            gvk: Gvk::new("autoscaling", "v2", "HorizontalPodAutoscaler"),
            to_stored,
            from_stored,
        }),
        columns: super::hpa_columns::columns_v1().into(),
        ..Kind::namespaced(V1, "HorizontalPodAutoscaler", "horizontalpodautoscalers")
    }
}

fn is_cpu(metric: &Value) -> bool {
    metric["resource"]["name"] == "cpu" && metric["resource"]["target"]["averageUtilization"].is_i64()
}

fn to_stored(scaler: &mut Value) {
    let annotation = |key: &str| {
        let text = scaler["metadata"]["annotations"][key].as_str()?;
        serde_json::from_str::<Value>(text).ok()
    };
    let (others, behavior) = (annotation(METRICS), annotation(BEHAVIOR));
    let mut metrics: Vec<Value> = others.iter().flat_map(|others| others.as_array()).flatten().map(newer).collect();
    let annotations = child(scaler, "metadata").and_then(|metadata| child(metadata, "annotations"));
    if let Some(annotations) = annotations {
        remove(annotations, METRICS);
        remove(annotations, BEHAVIOR);
    }
    if let Some(spec) = child(scaler, "spec") {
        if let Some(percent) = spec["targetCPUUtilizationPercentage"].as_i64() {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            metrics.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        remove(spec, "targetCPUUtilizationPercentage");
        if !metrics.is_empty() {
            set(spec, "metrics", metrics);
        }
        if let Some(behavior) = behavior {
            set(spec, "behavior", behavior);
        }
    }
    if let Some(status) = child(scaler, "status") {
        if let Some(percent) = status["currentCPUUtilizationPercentage"].as_i64() {
            let current = json!({"averageUtilization": percent});
            set(
                status,
                "currentMetrics",
                json!([{"type": "Resource", "resource": {"name": "cpu", "current": current}}]),
            );
        }
        remove(status, "currentCPUUtilizationPercentage");
    }
}

fn from_stored(scaler: &mut Value) {
    let metrics = list(scaler, "spec.metrics").to_vec();
    let others: Vec<Value> = metrics.iter().filter(|metric| !is_cpu(metric)).map(older).collect();
    let behavior = scaler["spec"]["behavior"].clone();
    let mut notes = Vec::new();
    if !others.is_empty() {
        notes.push((METRICS, Value::from(others)));
    }
    if !behavior.is_null() {
        notes.push((BEHAVIOR, behavior));
    }
    if let Some(spec) = child(scaler, "spec") {
        if let Some(cpu) = metrics.iter().find(|metric| is_cpu(metric)) {
            let percent = cpu["resource"]["target"]["averageUtilization"].clone();
            set(spec, "targetCPUUtilizationPercentage", percent);
        }
        remove(spec, "metrics");
        remove(spec, "behavior");
    }
    if let Some(status) = child(scaler, "status") {
        let cpu = list(status, "currentMetrics").iter().find(|metric| metric["resource"]["name"] == "cpu");
        let percent = cpu.map(|metric| metric["resource"]["current"]["averageUtilization"].clone());
        if let Some(percent) = percent.filter(Value::is_i64) {
            set(status, "currentCPUUtilizationPercentage", percent);
        }
        remove(status, "currentMetrics");
        remove(status, "conditions");
    }
    if notes.is_empty() {
        return;
    }
    let annotations = child(scaler, "metadata").and_then(|metadata| ensure(metadata, "annotations"));
    if let Some(annotations) = annotations {
        notes.into_iter().for_each(|(key, value)| set(annotations, key, value.to_string()));
    }
}

/// Where each kind of metric keeps its parts: field here, and path there.
fn parts(kind: &str) -> (&'static str, &'static [(&'static str, &'static str)]) {
    const NAMED: &[(&str, &str)] = &[
        ("name", "name"),
        ("container", "container"),
        ("targetAverageUtilization", "target.averageUtilization"),
        ("targetAverageValue", "target.averageValue"),
    ];
    match kind {
        "Resource" => ("resource", NAMED),
        "ContainerResource" => ("containerResource", NAMED),
        "Pods" => (
            "pods",
            &[
                ("metricName", "metric.name"),
                ("selector", "metric.selector"),
                ("targetAverageValue", "target.averageValue"),
            ],
        ),
        "Object" => (
            "object",
            &[
                ("target", "describedObject"),
                ("metricName", "metric.name"),
                ("selector", "metric.selector"),
                ("targetValue", "target.value"),
                ("averageValue", "target.averageValue"),
            ],
        ),
        _ => (
            "external",
            &[
                ("metricName", "metric.name"),
                ("metricSelector", "metric.selector"),
                ("targetValue", "target.value"),
                ("targetAverageValue", "target.averageValue"),
            ],
        ),
    }
}

fn older(metric: &Value) -> Value {
    let (field, parts) = parts(text(metric, "type"));
    let mut source = json!({});
    for (here, there) in parts {
        let value = crate::json::at(&metric[field], there);
        if !value.is_null() {
            set(&mut source, here, value.clone());
        }
    }
    json!({"type": metric["type"], field: source})
}

fn newer(metric: &Value) -> Value {
    let (field, parts) = parts(text(metric, "type"));
    let mut source = json!({});
    for (here, there) in parts.iter().filter(|(here, _)| !metric[field][*here].is_null()) {
        let value = metric[field][*here].clone();
        match there.split_once('.') {
            Some((outer, inner)) => ensure(&mut source, outer).into_iter().for_each(|o| set(o, inner, value.clone())),
            None => set(&mut source, there, value),
        }
    }
    if let Some(target) = child(&mut source, "target") {
        let kind = match (target["averageUtilization"].is_null(), target["averageValue"].is_null()) {
            (false, _) => "Utilization",
            (true, false) => "AverageValue",
            (true, true) => "Value",
        };
        set(target, "type", kind);
    }
    json!({"type": metric["type"], field: source})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_survives_the_way_through_this_version() {
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "5"}}});
        let stored =
            json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"maxReplicas": 3, "metrics": [cpu, pods]}});
        let mut seen = stored.clone();
        from_stored(&mut seen);
        assert_eq!(seen["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}));
        to_stored(&mut seen);
        assert_eq!(seen, stored);
    }
}

//! autoscaling/v1 HorizontalPodAutoscaler: the view that knows one metric, CPU; the others travel in an annotation.

use meta::Gvk;
use serde_json::{Value, json};

use super::V1;
use crate::json::{child, ensure, list, remove, set, text};
use crate::kind::{Kind, StoredAs, texts};

/// Metrics that this version has no field for, in this version's own shape.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
/// Scaling behaviour, which this version has no field for; its keys are written with capitals.
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// What all metrics are now, in this version's own shape.
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
/// Conditions, which this version has no field for.
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

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
    let (others, behavior) = (annotation(METRICS), annotation(BEHAVIOR).map(|all| renamed(&all, lower)));
    let (current, conditions) = (annotation(CURRENT), annotation(CONDITIONS));
    let mut metrics: Vec<Value> = others.iter().flat_map(|others| others.as_array()).flatten().map(newer).collect();
    super::drop_carried(scaler);
    if let Some(spec) = child(scaler, "spec") {
        if let Some(percent) = spec["targetCPUUtilizationPercentage"].as_i64() {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
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
    for (field, value) in [("currentMetrics", current.map(|all| newer_statuses(&all))), ("conditions", conditions)] {
        if let Some((value, status)) = value.and_then(|value| Some((value, ensure(scaler, "status")?))) {
            set(status, field, value);
        }
    }
}

fn newer_statuses(all: &Value) -> Value {
    all.as_array().into_iter().flatten().map(newer_status).collect()
}

fn from_stored(scaler: &mut Value) {
    let metrics = list(scaler, "spec.metrics").to_vec();
    let others: Vec<Value> = metrics.iter().filter(|metric| !is_cpu(metric)).map(older).collect();
    let behavior = scaler["spec"]["behavior"].clone();
    let mut notes = Vec::new();
    if !others.is_empty() {
        notes.push((METRICS, Value::from(others)));
    }
    let current = list(scaler, "status.currentMetrics");
    if !current.is_empty() {
        notes.push((CURRENT, current.iter().map(older_status).collect()));
    }
    if !behavior.is_null() {
        notes.push((BEHAVIOR, whole_behavior(&behavior)));
    }
    let conditions = list(scaler, "status.conditions");
    if !conditions.is_empty() {
        notes.push((CONDITIONS, Value::from(conditions)));
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

/// The same for what metrics are now.
fn status_parts(kind: &str) -> (&'static str, &'static [(&'static str, &'static str)]) {
    const NAMED: &[(&str, &str)] = &[
        ("name", "name"),
        ("container", "container"),
        ("currentAverageUtilization", "current.averageUtilization"),
        ("currentAverageValue", "current.averageValue"),
    ];
    match kind {
        "Resource" => ("resource", NAMED),
        "ContainerResource" => ("containerResource", NAMED),
        "Pods" => (
            "pods",
            &[
                ("metricName", "metric.name"),
                ("selector", "metric.selector"),
                ("currentAverageValue", "current.averageValue"),
            ],
        ),
        "Object" => (
            "object",
            &[
                ("target", "describedObject"),
                ("metricName", "metric.name"),
                ("selector", "metric.selector"),
                ("currentValue", "current.value"),
                ("averageValue", "current.averageValue"),
            ],
        ),
        _ => (
            "external",
            &[
                ("metricName", "metric.name"),
                ("metricSelector", "metric.selector"),
                ("currentValue", "current.value"),
                ("currentAverageValue", "current.averageValue"),
            ],
        ),
    }
}

type Parts = fn(&str) -> (&'static str, &'static [(&'static str, &'static str)]);

fn older_part(metric: &Value, parts: Parts) -> Value {
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

fn newer_part(metric: &Value, parts: Parts) -> Value {
    let (field, parts) = parts(text(metric, "type"));
    let mut source = json!({});
    for (here, there) in parts.iter().filter(|(here, _)| !metric[field][*here].is_null()) {
        let value = metric[field][*here].clone();
        match there.split_once('.') {
            Some((outer, inner)) => ensure(&mut source, outer).into_iter().for_each(|o| set(o, inner, value.clone())),
            None => set(&mut source, there, value),
        }
    }
    json!({"type": metric["type"], field: source})
}

fn older(metric: &Value) -> Value {
    older_part(metric, parts)
}

fn newer(metric: &Value) -> Value {
    let mut new = newer_part(metric, parts);
    let target = child(&mut new, parts(text(metric, "type")).0).and_then(|source| child(source, "target"));
    if let Some(target) = target {
        let kind = match (target["averageUtilization"].is_null(), target["averageValue"].is_null()) {
            (false, _) => "Utilization",
            (true, false) => "AverageValue",
            (true, true) => "Value",
        };
        set(target, "type", kind);
    }
    new
}

fn older_status(metric: &Value) -> Value {
    // A metric that could not be had has no type and nothing else.
    if text(metric, "type").is_empty() {
        return json!({"type": ""});
    }
    let mut old = older_part(metric, status_parts);
    let (field, _) = status_parts(text(metric, "type"));
    let required = if ["object", "external"].contains(&field) { "currentValue" } else { "currentAverageValue" };
    child(&mut old, field).into_iter().for_each(|source| crate::json::fill(source, required, "0"));
    old
}

fn newer_status(metric: &Value) -> Value {
    if text(metric, "type").is_empty() { json!({"type": ""}) } else { newer_part(metric, status_parts) }
}

/// Every key with another first letter; what is null is left out.
fn renamed(value: &Value, letter: fn(&str) -> String) -> Value {
    match value {
        Value::Object(fields) => {
            let known = fields.iter().filter(|(_, value)| !value.is_null());
            known.map(|(key, value)| (letter(key), renamed(value, letter))).collect()
        }
        Value::Array(items) => items.iter().map(|item| renamed(item, letter)).collect(),
        other => other.clone(),
    }
}

fn lower(key: &str) -> String {
    key.chars().take(1).map(|c| c.to_ascii_lowercase()).chain(key.chars().skip(1)).collect()
}

fn upper(key: &str) -> String {
    key.chars().take(1).map(|c| c.to_ascii_uppercase()).chain(key.chars().skip(1)).collect()
}

/// A behaviour as upstream keeps it in the annotation: unset fields are there, and null.
fn whole_behavior(behavior: &Value) -> Value {
    let mut whole = renamed(behavior, upper);
    for direction in ["ScaleUp", "ScaleDown"] {
        if let Some(rules) = child(&mut whole, direction) {
            for field in ["StabilizationWindowSeconds", "SelectPolicy", "Policies", "Tolerance"] {
                crate::json::fill(rules, field, Value::Null);
            }
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_survives_the_way_through_this_version() {
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "5"}}});
        let behavior = json!({"scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}});
        let failed = json!({"type": "ScalingActive", "status": "False"});
        let current = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7, "averageValue": "7m"}}});
        let stored = json!({"metadata": {"annotations": {"a": "b"}},
            "spec": {"maxReplicas": 3, "metrics": [pods, cpu], "behavior": behavior},
            "status": {"currentMetrics": [{"type": ""}, current], "conditions": [failed]}});
        let mut seen = stored.clone();
        from_stored(&mut seen);
        let note =
            |key: &str| seen["metadata"]["annotations"][format!("autoscaling.alpha.kubernetes.io/{key}")].clone();
        let rules = r#"{"ScaleDown":{"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":1,"PeriodSeconds":15}],"StabilizationWindowSeconds":null,"Tolerance":null}}"#;
        assert_eq!(
            serde_json::from_str::<Value>(note("behavior").as_str().unwrap()).unwrap(),
            serde_json::from_str::<Value>(rules).unwrap()
        );
        assert_eq!(seen["status"], json!({"currentCPUUtilizationPercentage": 7}));
        assert_eq!(seen["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}));
        to_stored(&mut seen);
        assert_eq!(seen, stored);
    }
}

//! How a HorizontalPodAutoscaler shows in a table.

use serde_json::Value;

use crate::columns;
use crate::json::{list, text};
use crate::kind::Column;

const METRICS_MAX: usize = 2;

pub fn columns() -> Vec<Column> {
    vec![
        columns::name(),
        Column::new("Reference", "string", "What it scales.", |o, _| {
            format!("{}/{}", text(o, "spec.scaleTargetRef.kind"), text(o, "spec.scaleTargetRef.name")).into()
        }),
        Column::new("Targets", "string", "Metrics now, and as wanted.", |o, _| targets(o).into()),
        Column::new("MinPods", "string", "Pods at least.", |o, _| match &o["spec"]["minReplicas"] {
            Value::Null => "<unset>".into(),
            number => number.to_string().into(),
        }),
        Column::new("MaxPods", "string", "Pods at most.", |o, _| columns::number(o, "spec.maxReplicas")),
        Column::new("Replicas", "string", "Pods there are.", |o, _| columns::number(o, "status.currentReplicas")),
        columns::age(),
    ]
}

/// The same for autoscaling/v1, whose only metric is CPU.
pub fn columns_v1() -> Vec<Column> {
    let mut all = columns();
    if let Some(targets) = all.iter_mut().find(|column| column.name == "Targets") {
        targets.read = |o, _| {
            let wanted = percent(&o["spec"]["targetCPUUtilizationPercentage"], "");
            let now = percent(&o["status"]["currentCPUUtilizationPercentage"], "<unknown>");
            if wanted.is_empty() { "<none>".into() } else { format!("cpu: {now}/{wanted}").into() }
        };
    }
    all
}

fn targets(object: &Value) -> String {
    let specs = list(object, "spec.metrics");
    let statuses = list(object, "status.currentMetrics");
    let texts: Vec<String> = specs.iter().enumerate().map(|(i, spec)| metric(spec, statuses.get(i))).collect();
    match texts.len() {
        0 => "<none>".to_owned(),
        count if count > METRICS_MAX => {
            format!("{} + {} more...", texts[..METRICS_MAX].join(", "), count - METRICS_MAX)
        }
        _ => texts.join(", "),
    }
}

fn amount(value: &Value, otherwise: &str) -> String {
    value.as_str().unwrap_or(otherwise).to_owned()
}

fn percent(value: &Value, otherwise: &str) -> String {
    value.as_i64().map_or_else(|| otherwise.to_owned(), |percent| format!("{percent}%"))
}

fn metric(spec: &Value, status: Option<&Value>) -> String {
    let source = match text(spec, "type") {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let target = &spec[source]["target"];
    let current = status.map_or(&Value::Null, |status| &status[source]["current"]);
    let average = !target["averageValue"].is_null();
    let (now, wanted) = if average {
        (amount(&current["averageValue"], "<unknown>"), amount(&target["averageValue"], ""))
    } else if source.to_lowercase().ends_with("resource") {
        (percent(&current["averageUtilization"], "<unknown>"), percent(&target["averageUtilization"], "<auto>"))
    } else {
        (amount(&current["value"], "<unknown>"), amount(&target["value"], ""))
    };
    match source {
        "resource" | "containerResource" => format!("{}: {now}/{wanted}", text(&spec[source], "name")),
        "object" | "external" if average => format!("{now}/{wanted} (avg)"),
        _ => format!("{now}/{wanted}"),
    }
}

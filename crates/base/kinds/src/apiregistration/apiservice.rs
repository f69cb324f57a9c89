//! apiregistration.k8s.io/v1 APIService: who serves a group and version.

use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{child, fill, list, set, text};
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        categories: texts(&["api-extensions"]),
        has_status: true,
        columns: vec![
            columns::name(),
            Column::new("Service", "string", "Who serves it.", |o, _| service(o)),
            Column::new("Available", "string", "Whether it answers.", |o, _| available(o)),
            columns::age(),
        ]
        .into(),
        prepare_create: |o| set(o, "status", json!({})),
        default,
        ..Kind::cluster(V1, "APIService", "apiservices")
    }
}

fn service(api: &Value) -> Value {
    match &api["spec"]["service"] {
        Value::Null => "Local".into(),
        service => format!("{}/{}", text(service, "namespace"), text(service, "name")).into(),
    }
}

fn available(api: &Value) -> Value {
    let condition = list(api, "status.conditions").iter().find(|condition| condition["type"] == "Available");
    match condition {
        None => "Unknown".into(),
        Some(condition) if condition["status"] == "True" => "True".into(),
        Some(condition) => format!("{} ({})", text(condition, "status"), text(condition, "reason")).into(),
    }
}

fn default(api: &mut Value) {
    if let Some(service) = child(api, "spec").and_then(|spec| child(spec, "service")) {
        fill(service, "port", 443);
    }
}

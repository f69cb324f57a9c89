//! v1 ComponentStatus: the old health list of control plane parts, read only.

use serde_json::Value;

use super::V1;
use crate::columns;
use crate::json::{list, text};
use crate::kind::{Column, Kind, Verbs, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["cs"]),
        verbs: Verbs::ReadOnly,
        columns: vec![
            columns::name(),
            Column::new("Status", "string", "Whether it is healthy.", |o, _| healthy(o, "status")),
            Column::new("Message", "string", "What it says.", |o, _| healthy(o, "message")),
            Column::new("Error", "string", "What is wrong.", |o, _| healthy(o, "error")),
        ]
        .into(),
        ..Kind::cluster(V1, "ComponentStatus", "componentstatuses")
    }
}

fn healthy(object: &Value, field: &str) -> Value {
    let condition = list(object, "conditions").iter().find(|condition| condition["type"] == "Healthy");
    match (condition, field) {
        (Some(condition), "status") => if condition["status"] == "True" { "Healthy" } else { "Unhealthy" }.into(),
        (Some(condition), field) => text(condition, field).into(),
        (None, "status") => "Unknown".into(),
        (None, _) => "".into(),
    }
}

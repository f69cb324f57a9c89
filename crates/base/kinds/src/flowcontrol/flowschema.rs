//! flowcontrol.apiserver.k8s.io/v1 FlowSchema: which requests go to which priority level.

use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{child, fill_empty, list, set, text};
use crate::kind::{Column, Kind};

pub fn kind() -> Kind {
    Kind {
        has_status: true,
        has_generation: true,
        columns: vec![
            columns::name(),
            Column::new("PriorityLevel", "string", "Where its requests go.", |o, _| {
                text(o, "spec.priorityLevelConfiguration.name").into()
            }),
            Column::new("MatchingPrecedence", "string", "The lowest that matches wins.", |o, _| {
                columns::number(o, "spec.matchingPrecedence")
            }),
            Column::new("DistinguisherMethod", "string", "What tells flows apart.", |o, _| {
                columns::or_none(text(o, "spec.distinguisherMethod.type"))
            }),
            columns::age(),
            Column::new("MissingPL", "string", "Whether its priority level is missing.", |o, _| dangling(o)),
        ]
        .into(),
        prepare_create: |o| set(o, "status", json!({})),
        default,
        ..Kind::cluster(V1, "FlowSchema", "flowschemas")
    }
}

fn dangling(schema: &Value) -> Value {
    let condition = list(schema, "status.conditions").iter().find(|condition| condition["type"] == "Dangling");
    condition.map_or("?", |condition| text(condition, "status")).into()
}

fn default(schema: &mut Value) {
    if let Some(spec) = child(schema, "spec") {
        fill_empty(spec, "matchingPrecedence", 1000);
    }
}

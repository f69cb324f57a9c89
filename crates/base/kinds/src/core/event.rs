//! v1 Event: what happened to an object and why.

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::Value;

use super::V1;
use crate::columns;
use crate::json::{int, text};
use crate::kind::{Column, Kind, SelectableField, texts};

pub fn kind() -> Kind {
    let field = |path: &'static str, read| SelectableField { path: path.into(), read };
    Kind {
        short_names: texts(&["ev"]),
        columns: columns().into(),
        validate,
        selectable_fields: vec![
            field("involvedObject.kind", |o| text(o, "involvedObject.kind").to_owned()),
            field("involvedObject.namespace", |o| text(o, "involvedObject.namespace").to_owned()),
            field("involvedObject.name", |o| text(o, "involvedObject.name").to_owned()),
            field("involvedObject.uid", |o| text(o, "involvedObject.uid").to_owned()),
            field("involvedObject.apiVersion", |o| text(o, "involvedObject.apiVersion").to_owned()),
            field("involvedObject.resourceVersion", |o| text(o, "involvedObject.resourceVersion").to_owned()),
            field("involvedObject.fieldPath", |o| text(o, "involvedObject.fieldPath").to_owned()),
            field("reason", |o| text(o, "reason").to_owned()),
            field("reportingComponent", |o| text(o, "reportingComponent").to_owned()),
            field("source", source_component),
            field("type", |o| text(o, "type").to_owned()),
        ]
        .into(),
        ..Kind::namespaced(V1, "Event", "events")
    }
}

fn source_component(event: &Value) -> String {
    first(text(event, "source.component"), text(event, "reportingComponent")).to_owned()
}

fn first<'a>(one: &'a str, other: &'a str) -> &'a str {
    if one.is_empty() { other } else { one }
}

fn columns() -> Vec<Column> {
    vec![
        Column::new("Last Seen", "string", "When it was last seen.", last_seen),
        Column::new("Type", "string", "Normal or Warning.", |o, _| text(o, "type").into()),
        Column::new("Reason", "string", "Why, in one word.", |o, _| text(o, "reason").into()),
        Column::new("Object", "string", "What it is about.", |o, _| object(o).into()),
        Column::new("Subobject", "string", "The part it is about.", |o, _| text(o, "involvedObject.fieldPath").into())
            .wide(),
        Column::new("Source", "string", "Who reports it.", |o, _| source(o).into()).wide(),
        Column::new("Message", "string", "What happened.", |o, _| text(o, "message").trim().into()),
        Column::new("First Seen", "string", "When it was first seen.", first_seen).wide(),
        Column::new("Count", "string", "How often it was seen.", |o, _| count(o).into()).wide(),
        Column { priority: 1, ..columns::name() },
    ]
}

fn first_seen(event: &Value, now: i64) -> Value {
    match &event["firstTimestamp"] {
        Value::Null => columns::since(&event["eventTime"], now),
        time => columns::since(time, now),
    }
}

fn last_seen(event: &Value, now: i64) -> Value {
    match (&event["series"]["lastObservedTime"], &event["lastTimestamp"]) {
        (Value::Null, Value::Null) => first_seen(event, now),
        (Value::Null, time) | (time, _) => columns::since(time, now),
    }
}

fn count(event: &Value) -> i64 {
    if event["series"].is_object() { int(event, "series.count") } else { int(event, "count").max(1) }
}

fn object(event: &Value) -> String {
    let kind = text(event, "involvedObject.kind").to_lowercase();
    match text(event, "involvedObject.name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source(event: &Value) -> String {
    let component = source_component(event);
    match first(text(event, "source.host"), text(event, "reportingInstance")) {
        "" => component,
        host => format!("{component}, {host}"),
    }
}

/// An event lives where its object lives; events of cluster objects live in `default`.
fn validate(event: &Value) -> FieldErrors {
    let own = text(event, "metadata.namespace");
    let about = text(event, "involvedObject.namespace");
    let path = FieldPath::new("involvedObject").child("namespace");
    match about {
        "" if matches!(own, "default" | "kube-system") => Vec::new(),
        about if about == own => Vec::new(),
        about => vec![FieldError::invalid(&path, about, "does not match event.namespace")],
    }
}

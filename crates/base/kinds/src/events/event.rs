//! events.k8s.io/v1 Event: what happened to an object and why; another view of the core Event.

use meta::Gvk;
use serde_json::Value;

use super::V1;
use crate::columns;
use crate::json::{int, text};
use crate::kind::{Column, Kind, SelectableField, StoredAs, texts};

/// Fields that have one name here and another in the core Event.
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

pub fn kind() -> Kind {
    let field = |path: &'static str, read| SelectableField { path: path.into(), read };
    Kind {
        short_names: texts(&["ev"]),
        stored_as: Some(StoredAs { gvk: Gvk::new("", "v1", "Event"), to_stored, from_stored }),
        columns: columns().into(),
        selectable_fields: vec![
            field("regarding.kind", |o| text(o, "regarding.kind").to_owned()),
            field("regarding.namespace", |o| text(o, "regarding.namespace").to_owned()),
            field("regarding.name", |o| text(o, "regarding.name").to_owned()),
            field("regarding.uid", |o| text(o, "regarding.uid").to_owned()),
            field("regarding.apiVersion", |o| text(o, "regarding.apiVersion").to_owned()),
            field("regarding.resourceVersion", |o| text(o, "regarding.resourceVersion").to_owned()),
            field("regarding.fieldPath", |o| text(o, "regarding.fieldPath").to_owned()),
            field("reason", |o| text(o, "reason").to_owned()),
            field("reportingController", |o| text(o, "reportingController").to_owned()),
            field("type", |o| text(o, "type").to_owned()),
        ]
        .into(),
        ..Kind::namespaced(V1, "Event", "events")
    }
}

fn rename(event: &mut Value, pairs: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(fields) = event.as_object_mut() else { return };
    for (from, to) in pairs {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

fn to_stored(event: &mut Value) {
    rename(event, RENAMED.into_iter());
}

fn from_stored(event: &mut Value) {
    rename(event, RENAMED.into_iter().map(|(here, stored)| (stored, here)));
}

fn columns() -> Vec<Column> {
    vec![
        Column::new("Last Seen", "string", "When it was last seen.", last_seen),
        Column::new("Type", "string", "Normal or Warning.", |o, _| text(o, "type").into()),
        Column::new("Reason", "string", "Why, in one word.", |o, _| text(o, "reason").into()),
        Column::new("Object", "string", "What it is about.", |o, _| object(o).into()),
        Column::new("Subobject", "string", "The part it is about.", |o, _| text(o, "regarding.fieldPath").into())
            .wide(),
        Column::new("Source", "string", "Who reports it.", |o, _| text(o, "reportingController").into()).wide(),
        Column::new("Message", "string", "What happened.", |o, _| text(o, "note").trim().into()),
        Column::new("First Seen", "string", "When it was first seen.", first_seen).wide(),
        Column::new("Count", "string", "How often it was seen.", |o, _| count(o).into()).wide(),
        Column { priority: 1, ..columns::name() },
    ]
}

fn first_seen(event: &Value, now: i64) -> Value {
    match &event["deprecatedFirstTimestamp"] {
        Value::Null => columns::since(&event["eventTime"], now),
        time => columns::since(time, now),
    }
}

fn last_seen(event: &Value, now: i64) -> Value {
    match (&event["series"]["lastObservedTime"], &event["deprecatedLastTimestamp"]) {
        (Value::Null, Value::Null) => first_seen(event, now),
        (Value::Null, time) | (time, _) => columns::since(time, now),
    }
}

fn count(event: &Value) -> i64 {
    if event["series"].is_object() { int(event, "series.count") } else { int(event, "deprecatedCount").max(1) }
}

fn object(event: &Value) -> String {
    format!("{}/{}", text(event, "regarding.kind").to_lowercase(), text(event, "regarding.name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_survives_the_way_to_storage_and_back() {
        let event = json!({"note": "n", "regarding": {"kind": "Pod"}, "reportingController": "c", "reason": "r"});
        let mut changed = event.clone();
        to_stored(&mut changed);
        assert_eq!(
            changed,
            json!({"message": "n", "involvedObject": {"kind": "Pod"}, "reportingComponent": "c", "reason": "r"})
        );
        from_stored(&mut changed);
        assert_eq!(changed, event);
    }
}

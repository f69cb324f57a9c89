//! Table columns that many kinds share, and the texts of their cells.

use meta::time;
use serde_json::Value;

use crate::kind::Column;

const NAME: &str = "The object's name, unique within its namespace and resource.";
const AGE: &str = "Time since the object was created.";

/// The columns of a kind that names none: its name and when it was made.
pub fn generic() -> Vec<Column> {
    vec![name(), Column::new("Created At", "date", AGE, |object, _| object["metadata"]["creationTimestamp"].clone())]
}

pub fn name() -> Column {
    Column::new("Name", "string", NAME, |object, _| object["metadata"]["name"].clone()).format("name")
}

pub fn age() -> Column {
    Column::new("Age", "string", AGE, |object, now| since(&object["metadata"]["creationTimestamp"], now))
}

/// How long ago an RFC 3339 time was, as kubectl writes it (`3d4h`), or `<unknown>`.
pub fn since(timestamp: &Value, now: i64) -> Value {
    match timestamp.as_str().and_then(time::parse_seconds) {
        Some(then) => Value::String(time::human_duration(now.saturating_sub(then))),
        None => Value::String("<unknown>".to_owned()),
    }
}

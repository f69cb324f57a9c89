//! The columns of a kind's table and their cells.

use serde_json::{Value, json};

use crate::registry::Served;

pub fn definitions(served: &Served) -> Value {
    let definition = |column: &kinds::Column| {
        json!({"name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority})
    };
    served.kind.columns.iter().map(definition).collect()
}

pub fn cells(served: &Served, object: &Value, now: i64) -> Vec<Value> {
    served.kind.columns.iter().map(|column| (column.read)(object, now)).collect()
}

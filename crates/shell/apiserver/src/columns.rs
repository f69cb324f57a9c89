//! The columns of a kind's table and their cells.

use serde_json::{Value, json};

use crate::registry::Served;

pub fn definitions(served: &Served) -> Value {
    let definition = |column: &kinds::Column| {
        json!({"name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority})
    };
    let own = served.custom.iter().flat_map(|custom| &custom.columns).map(crate::custom::PrinterColumn::definition);
    served.kind.columns.iter().map(definition).chain(own).collect()
}

pub fn cells(served: &Served, object: &Value, now: i64) -> Vec<Value> {
    let own = served.custom.iter().flat_map(|custom| &custom.columns).map(|column| column.cell(object, now));
    served.kind.columns.iter().map(|column| (column.read)(object, now)).chain(own).collect()
}

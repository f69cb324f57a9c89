//! apps/v1 ControllerRevision: a numbered snapshot of a controller template.

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::Value;

use super::V1;
use crate::json::{flag, list, text};
use crate::kind::{Column, Kind};
use crate::{columns, rules};

pub fn kind() -> Kind {
    Kind {
        columns: vec![
            columns::name(),
            Column::new("Controller", "string", "Whose template it keeps.", |o, _| controller(o)),
            Column::new("Revision", "string", "Its number.", |o, _| columns::number(o, "revision")),
            columns::age(),
        ]
        .into(),
        validate,
        validate_update,
        ..Kind::namespaced(V1, "ControllerRevision", "controllerrevisions")
    }
}

fn controller(object: &Value) -> Value {
    let owner = list(object, "metadata.ownerReferences").iter().find(|owner| flag(owner, "controller"));
    let Some(owner) = owner else { return "<none>".into() };
    let kind = text(owner, "kind").to_lowercase();
    let group = text(owner, "apiVersion").split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
    format!("{kind}{group}/{}", text(owner, "name")).into()
}

fn validate(object: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    if object["revision"].as_i64().is_some_and(|number| number < 0) {
        let number = object["revision"].clone();
        errors.push(FieldError::invalid(&FieldPath::new("revision"), number, rules::NOT_NEGATIVE));
    }
    match &object["data"] {
        Value::Object(_) => {}
        Value::Null => errors.push(FieldError::required(&FieldPath::new("data"), "data is mandatory")),
        _ => errors.push(FieldError::required(&FieldPath::new("data"), "data must be a valid JSON object")),
    }
    errors
}

/// A snapshot does not change; only its number does, when its template is used again.
fn validate_update(new: &Value, old: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    rules::immutable(&mut errors, &new["data"], &old["data"], &FieldPath::new("data"));
    errors
}

//! apps/v1 ControllerRevision: a numbered snapshot of a controller template.

use serde_json::Value;

use super::V1;
use crate::columns;
use crate::json::{flag, list, text};
use crate::kind::{Column, Kind};

pub fn kind() -> Kind {
    Kind {
        columns: vec![
            columns::name(),
            Column::new("Controller", "string", "Whose template it keeps.", |o, _| controller(o)),
            Column::new("Revision", "string", "Its number.", |o, _| columns::number(o, "revision")),
            columns::age(),
        ]
        .into(),
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

//! v1 Secret: data that needs care: tokens, keys, passwords.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::V1;
use crate::columns;
use crate::json::{ensure, fill_empty, map, remove, set, text};
use crate::kind::{Column, Kind, SelectableField};

pub fn kind() -> Kind {
    Kind {
        columns: vec![
            columns::name(),
            Column::new("Type", "string", "What the data is for.", |o, _| text(o, "type").into()),
            Column::new("Data", "string", "How many keys it has.", |o, _| map(o, "data").map_or(0, Map::len).into()),
            columns::age(),
        ]
        .into(),
        default,
        selectable_fields: vec![SelectableField { path: "type".into(), read: |o| text(o, "type").to_owned() }].into(),
        validate: super::data_rules::validate_secret,
        validate_update: super::data_rules::validate_secret_update,
        ..Kind::namespaced(V1, "Secret", "secrets")
    }
}

/// `stringData` is the write-only way to give texts: they end up in `data`, encoded.
fn default(secret: &mut Value) {
    fill_empty(secret, "type", "Opaque");
    let texts = map(secret, "stringData").cloned().unwrap_or_default();
    remove(secret, "stringData");
    let Some(data) = (!texts.is_empty()).then(|| ensure(secret, "data")).flatten() else { return };
    for (key, value) in texts {
        set(data, &key, STANDARD.encode(value.as_str().unwrap_or_default()));
    }
}

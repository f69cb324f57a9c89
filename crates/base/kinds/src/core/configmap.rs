//! v1 ConfigMap: configuration data as keys and texts or bytes.

use serde_json::{Map, Value};

use super::V1;
use crate::columns;
use crate::json::map;
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["cm"]),
        columns: vec![
            columns::name(),
            Column::new("Data", "string", "How many keys it has.", |o, _| keys(o)),
            columns::age(),
        ]
        .into(),
        validate: super::data_rules::validate_config_map,
        validate_update: super::data_rules::validate_update,
        ..Kind::namespaced(V1, "ConfigMap", "configmaps")
    }
}

fn keys(object: &Value) -> Value {
    let count = |field| map(object, field).map_or(0, Map::len);
    (count("data") + count("binaryData")).into()
}

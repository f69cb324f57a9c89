//! v1 ResourceQuota: how much a namespace may use.

use serde_json::{Value, json};

use super::V1;
use super::pod_defaults::default_resource_list;
use crate::columns;
use crate::json::{child, map, set};
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["quota"]),
        has_status: true,
        columns: vec![
            columns::name(),
            Column::new("Request", "string", "Used of allowed, requests and counts.", |o, _| used(o, false)),
            Column::new("Limit", "string", "Used of allowed, limits.", |o, _| used(o, true)),
            columns::age(),
        ]
        .into(),
        default,
        prepare_create: |quota| set(quota, "status", json!({})),
        ..Kind::namespaced(V1, "ResourceQuota", "resourcequotas")
    }
}

fn used(quota: &Value, limits: bool) -> Value {
    let hard = map(quota, "status.hard").into_iter().flatten();
    let of = |(name, hard): (&String, &Value)| {
        let used = quota["status"]["used"][name].as_str().unwrap_or("0");
        format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
    };
    hard.filter(|(name, _)| name.starts_with("limits.") == limits).map(of).collect::<Vec<_>>().join(", ").into()
}

fn default(quota: &mut Value) {
    if let Some(spec) = child(quota, "spec") {
        default_resource_list(spec, "hard");
    }
}

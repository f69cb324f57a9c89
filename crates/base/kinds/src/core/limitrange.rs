//! v1 LimitRange: default, least and most resources per container, pod or claim of a namespace.

use serde_json::Value;

use super::V1;
use super::pod_defaults::default_resource_list;
use crate::columns;
use crate::json::{child, ensure, fill, items, map};
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["limits"]),
        columns: vec![
            columns::name(),
            Column::new("Created At", "date", "When it was made.", |o, _| o["metadata"]["creationTimestamp"].clone()),
        ]
        .into(),
        default,
        ..Kind::namespaced(V1, "LimitRange", "limitranges")
    }
}

/// A container's default limit is the maximum, its default request the default limit or the minimum.
fn default(range: &mut Value) {
    let Some(spec) = child(range, "spec") else { return };
    for item in items(spec, "limits") {
        for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            default_resource_list(item, list);
        }
        if item["type"] == "Container" {
            inherit(item, "default", "max");
            inherit(item, "defaultRequest", "default");
            inherit(item, "defaultRequest", "min");
        }
    }
}

fn inherit(item: &mut Value, to: &str, from: &str) {
    let amounts = map(item, from).cloned().unwrap_or_default();
    let Some(target) = (!amounts.is_empty()).then(|| ensure(item, to)).flatten() else { return };
    for (name, amount) in amounts {
        fill(target, &name, amount);
    }
}

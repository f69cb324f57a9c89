//! resource.k8s.io/v1 ResourceClaim: a request for devices.

use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{child, fill, fill_empty, has, items, list, set};
use crate::kind::{Column, Kind};

pub fn kind() -> Kind {
    Kind {
        has_status: true,
        columns: vec![
            columns::name(),
            Column::new("State", "string", "Whether devices are allocated.", |o, _| state(o).into()),
            columns::age(),
        ]
        .into(),
        default: |o| child(o, "spec").into_iter().for_each(default_spec),
        prepare_create: |o| set(o, "status", json!({})),
        ..Kind::namespaced(V1, "ResourceClaim", "resourceclaims")
    }
}

/// A request that does not say how many devices it wants wants one.
pub fn default_spec(spec: &mut Value) {
    let Some(devices) = child(spec, "devices") else { return };
    for request in items(devices, "requests") {
        child(request, "exactly").into_iter().for_each(default_request);
        items(request, "firstAvailable").for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    fill(request, "allocationMode", "ExactCount");
    if request["allocationMode"] == "ExactCount" {
        fill_empty(request, "count", 1);
    }
}

fn state(claim: &Value) -> String {
    let deleted = has(claim, "metadata.deletionTimestamp");
    let allocated = has(claim, "status.allocation");
    let states = [
        (deleted, "deleted"),
        (!allocated && !deleted, "pending"),
        (allocated, "allocated"),
        (allocated && !list(claim, "status.reservedFor").is_empty(), "reserved"),
    ];
    states.into_iter().filter(|(holds, _)| *holds).map(|(_, state)| state).collect::<Vec<_>>().join(",")
}

//! resource.k8s.io/v1 ResourceClaim: a request for devices.

use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{has, list, set};
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
        prepare_create: |o| set(o, "status", json!({})),
        ..Kind::namespaced(V1, "ResourceClaim", "resourceclaims")
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

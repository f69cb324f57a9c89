//! storage.k8s.io/v1 CSIDriver: how a storage driver wants to be used.

use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{ensure, fill, fill_empty, flag, list, text};
use crate::kind::{Column, Kind};

pub fn kind() -> Kind {
    Kind {
        columns: vec![
            columns::name(),
            Column::new("AttachRequired", "boolean", "Whether volumes are attached first.", |o, _| {
                flag(o, "spec.attachRequired").into()
            }),
            Column::new("PodInfoOnMount", "boolean", "Whether it is told of the pod.", |o, _| {
                flag(o, "spec.podInfoOnMount").into()
            }),
            Column::new("StorageCapacity", "boolean", "Whether it publishes capacity.", |o, _| {
                flag(o, "spec.storageCapacity").into()
            }),
            Column::new("TokenRequests", "string", "Audiences of tokens it gets.", |o, _| tokens(o)),
            Column::new("RequiresRepublish", "boolean", "Whether it is called again from time to time.", |o, _| {
                flag(o, "spec.requiresRepublish").into()
            }),
            Column::new("Modes", "string", "Lifecycles of its volumes.", |o, _| modes(o)),
            columns::age(),
        ]
        .into(),
        default,
        ..Kind::cluster(V1, "CSIDriver", "csidrivers")
    }
}

fn tokens(driver: &Value) -> Value {
    let Some(requests) = driver["spec"]["tokenRequests"].as_array() else { return "<unset>".into() };
    requests.iter().map(|request| text(request, "audience")).collect::<Vec<_>>().join(",").into()
}

fn modes(driver: &Value) -> Value {
    let modes: Vec<&str> = list(driver, "spec.volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
    columns::or_none(&modes.join(","))
}

fn default(driver: &mut Value) {
    let Some(spec) = ensure(driver, "spec") else { return };
    fill(spec, "attachRequired", true);
    fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    for off in ["podInfoOnMount", "requiresRepublish", "seLinuxMount", "storageCapacity"] {
        fill(spec, off, false);
    }
    fill_empty(spec, "volumeLifecycleModes", json!(["Persistent"]));
}

//! resource.k8s.io/v1 ResourceSlice: devices that a driver offers.

use super::V1;
use crate::columns;
use crate::json::text;
use crate::kind::{Column, Kind, SelectableField};

pub fn kind() -> Kind {
    Kind {
        has_generation: true,
        columns: vec![
            columns::name(),
            Column::new("Node", "string", "The node that has the devices.", |o, _| text(o, "spec.nodeName").into()),
            Column::new("Driver", "string", "Who offers them.", |o, _| text(o, "spec.driver").into()),
            Column::new("Pool", "string", "The pool they belong to.", |o, _| text(o, "spec.pool.name").into()),
            columns::age(),
        ]
        .into(),
        selectable_fields: vec![
            SelectableField { path: "spec.nodeName".into(), read: |o| text(o, "spec.nodeName").to_owned() },
            SelectableField { path: "spec.driver".into(), read: |o| text(o, "spec.driver").to_owned() },
        ]
        .into(),
        ..Kind::cluster(V1, "ResourceSlice", "resourceslices")
    }
}

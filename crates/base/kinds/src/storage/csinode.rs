//! storage.k8s.io/v1 CSINode: the storage drivers of a node.

use super::V1;
use crate::columns;
use crate::json::list;
use crate::kind::{Column, Kind};

pub fn kind() -> Kind {
    Kind {
        columns: vec![
            columns::name(),
            Column::new("Drivers", "integer", "How many drivers the node has.", |o, _| {
                list(o, "spec.drivers").len().into()
            }),
            columns::age(),
        ]
        .into(),
        ..Kind::cluster(V1, "CSINode", "csinodes")
    }
}

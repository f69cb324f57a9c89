//! node.k8s.io/v1 RuntimeClass: a container runtime configuration to choose.

use super::V1;
use crate::columns;
use crate::json::text;
use crate::kind::{Column, Kind};

pub fn kind() -> Kind {
    Kind {
        columns: vec![
            columns::name(),
            Column::new("Handler", "string", "The configuration of the runtime.", |o, _| text(o, "handler").into()),
            columns::age(),
        ]
        .into(),
        ..Kind::cluster(V1, "RuntimeClass", "runtimeclasses")
    }
}

//! scheduling.k8s.io/v1 PriorityClass: a named pod priority.

use super::V1;
use crate::columns;
use crate::json::{fill, flag, text};
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["pc"]),
        has_generation: true,
        columns: vec![
            columns::name(),
            Column::new("Value", "integer", "The priority.", |o, _| columns::number(o, "value")),
            Column::new("Global-Default", "boolean", "Whether pods without a class get it.", |o, _| {
                flag(o, "globalDefault").into()
            }),
            columns::age(),
            Column::new("PreemptionPolicy", "string", "Whether its pods push others out.", |o, _| {
                text(o, "preemptionPolicy").into()
            })
            .wide(),
        ]
        .into(),
        default: |o| fill(o, "preemptionPolicy", "PreemptLowerPriority"),
        ..Kind::cluster(V1, "PriorityClass", "priorityclasses")
    }
}

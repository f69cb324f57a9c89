//! coordination.k8s.io/v1 Lease: who holds a lock, and until when.

use super::V1;
use crate::columns;
use crate::json::text;
use crate::kind::{Column, Kind};

pub fn kind() -> Kind {
    Kind {
        columns: vec![
            columns::name(),
            Column::new("Holder", "string", "Who holds it.", |o, _| text(o, "spec.holderIdentity").into()),
            columns::age(),
        ]
        .into(),
        ..Kind::namespaced(V1, "Lease", "leases")
    }
}

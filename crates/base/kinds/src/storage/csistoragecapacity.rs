//! storage.k8s.io/v1 CSIStorageCapacity: how much storage a driver can still make in a topology.

use super::V1;
use crate::columns;
use crate::json::text;
use crate::kind::{Column, Kind};

pub fn kind() -> Kind {
    Kind {
        columns: vec![
            columns::name(),
            Column::new("StorageClassName", "string", "The class it is about.", |o, _| {
                text(o, "storageClassName").into()
            }),
            Column::new("Capacity", "string", "How much can be made.", |o, _| columns::or_unset(&o["capacity"])),
        ]
        .into(),
        ..Kind::namespaced(V1, "CSIStorageCapacity", "csistoragecapacities")
    }
}

//! storage.k8s.io/v1 CSIStorageCapacity: how much storage a driver can still make in a topology.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind::namespaced(V1, "CSIStorageCapacity", "csistoragecapacities")
}

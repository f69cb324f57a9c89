//! coordination.k8s.io/v1 Lease: who holds a lock, and until when.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind::namespaced(V1, "Lease", "leases")
}

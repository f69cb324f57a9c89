//! storage.k8s.io/v1 CSINode: the storage drivers of a node.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind::cluster(V1, "CSINode", "csinodes")
}

//! storage.k8s.io/v1 CSIDriver: how a storage driver wants to be used.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind::cluster(V1, "CSIDriver", "csidrivers")
}

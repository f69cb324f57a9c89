//! node.k8s.io/v1 RuntimeClass: a container runtime configuration to choose.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind::cluster(V1, "RuntimeClass", "runtimeclasses")
}

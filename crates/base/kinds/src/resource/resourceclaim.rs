//! resource.k8s.io/v1 ResourceClaim: a request for devices.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind { has_status: true, ..Kind::namespaced(V1, "ResourceClaim", "resourceclaims") }
}

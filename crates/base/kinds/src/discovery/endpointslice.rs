//! discovery.k8s.io/v1 EndpointSlice: a slice of the addresses behind a Service.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind { has_generation: true, ..Kind::namespaced(V1, "EndpointSlice", "endpointslices") }
}

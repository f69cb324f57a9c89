//! resource.k8s.io/v1 ResourceSlice: devices that a driver offers.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind { has_generation: true, ..Kind::cluster(V1, "ResourceSlice", "resourceslices") }
}

//! resource.k8s.io/v1 DeviceClass: a kind of device that claims may ask for.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind { has_generation: true, ..Kind::cluster(V1, "DeviceClass", "deviceclasses") }
}

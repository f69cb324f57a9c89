//! resource.k8s.io/v1 DeviceClass: a kind of device that claims may ask for.

use super::V1;
use crate::columns;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind {
        has_generation: true,
        columns: vec![columns::name(), columns::age()].into(),
        ..Kind::cluster(V1, "DeviceClass", "deviceclasses")
    }
}

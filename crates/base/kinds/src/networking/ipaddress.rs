//! networking.k8s.io/v1 IPAddress: an address taken from a service range.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind { short_names: texts(&["ip"]), ..Kind::cluster(V1, "IPAddress", "ipaddresses") }
}

//! networking.k8s.io/v1 ServiceCIDR: a range that service addresses come from.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind { has_status: true, ..Kind::cluster(V1, "ServiceCIDR", "servicecidrs") }
}

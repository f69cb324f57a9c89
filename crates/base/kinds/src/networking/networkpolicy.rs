//! networking.k8s.io/v1 NetworkPolicy: which traffic pods accept and send.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["netpol"]),
        has_generation: true,
        ..Kind::namespaced(V1, "NetworkPolicy", "networkpolicies")
    }
}

//! networking.k8s.io/v1 Ingress: HTTP routes into the cluster.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["ing"]),
        has_status: true,
        has_generation: true,
        ..Kind::namespaced(V1, "Ingress", "ingresses")
    }
}

//! networking.k8s.io/v1 IngressClass: which controller serves an Ingress.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind { has_generation: true, ..Kind::cluster(V1, "IngressClass", "ingressclasses") }
}

//! v1 PodTemplate: a pod description kept for others to use.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind { has_generation: true, ..Kind::namespaced(V1, "PodTemplate", "podtemplates") }
}

//! v1 Binding: assigns a pod to a node; written, never stored.

use super::V1;
use crate::kind::{Kind, Verbs};

pub fn kind() -> Kind {
    Kind { verbs: Verbs::CreateOnly, ..Kind::namespaced(V1, "Binding", "bindings") }
}

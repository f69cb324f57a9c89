//! apps/v1 DaemonSet: one pod on every fitting node.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["ds"]),
        categories: texts(&["all"]),
        has_status: true,
        has_generation: true,
        ..Kind::namespaced(V1, "DaemonSet", "daemonsets")
    }
}

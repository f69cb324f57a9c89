//! scheduling.k8s.io/v1 PriorityClass: a named pod priority.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind { short_names: texts(&["pc"]), has_generation: true, ..Kind::cluster(V1, "PriorityClass", "priorityclasses") }
}

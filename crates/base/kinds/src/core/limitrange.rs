//! v1 LimitRange: default, least and most resources per container, pod or claim of a namespace.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind { short_names: texts(&["limits"]), ..Kind::namespaced(V1, "LimitRange", "limitranges") }
}

//! events.k8s.io/v1 Event: what happened to an object and why.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind { short_names: texts(&["ev"]), ..Kind::namespaced(V1, "Event", "events") }
}

//! v1 Endpoints: the addresses behind a Service, all in one object.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind { short_names: texts(&["ep"]), ..Kind::namespaced(V1, "Endpoints", "endpoints") }
}

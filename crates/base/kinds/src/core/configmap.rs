//! v1 ConfigMap: configuration data as keys and texts or bytes.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind { short_names: texts(&["cm"]), ..Kind::namespaced(V1, "ConfigMap", "configmaps") }
}

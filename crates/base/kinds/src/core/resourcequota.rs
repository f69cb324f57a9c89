//! v1 ResourceQuota: how much a namespace may use.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind { short_names: texts(&["quota"]), has_status: true, ..Kind::namespaced(V1, "ResourceQuota", "resourcequotas") }
}

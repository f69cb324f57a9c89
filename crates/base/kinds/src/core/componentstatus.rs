//! v1 ComponentStatus: the old health list of control plane parts, read only.

use super::V1;
use crate::kind::{Kind, Verbs, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["cs"]),
        verbs: Verbs::ReadOnly,
        ..Kind::cluster(V1, "ComponentStatus", "componentstatuses")
    }
}

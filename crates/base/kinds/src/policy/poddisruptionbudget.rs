//! policy/v1 PodDisruptionBudget: how many pods an eviction may take away.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["pdb"]),
        has_status: true,
        has_generation: true,
        ..Kind::namespaced(V1, "PodDisruptionBudget", "poddisruptionbudgets")
    }
}

//! batch/v1 Job: runs pods until enough of them succeed.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind { categories: texts(&["all"]), has_status: true, has_generation: true, ..Kind::namespaced(V1, "Job", "jobs") }
}

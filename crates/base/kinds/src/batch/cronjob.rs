//! batch/v1 CronJob: starts Jobs on a schedule.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["cj"]),
        categories: texts(&["all"]),
        has_status: true,
        has_generation: true,
        ..Kind::namespaced(V1, "CronJob", "cronjobs")
    }
}

//! autoscaling/v2 HorizontalPodAutoscaler: scales a workload by its metrics.

use super::V2;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["hpa"]),
        categories: texts(&["all"]),
        has_status: true,
        ..Kind::namespaced(V2, "HorizontalPodAutoscaler", "horizontalpodautoscalers")
    }
}

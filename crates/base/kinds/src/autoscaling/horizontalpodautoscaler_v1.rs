//! autoscaling/v1 HorizontalPodAutoscaler: scales a workload by its metrics.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["hpa"]),
        categories: texts(&["all"]),
        has_status: true,
        ..Kind::namespaced(V1, "HorizontalPodAutoscaler", "horizontalpodautoscalers")
    }
}

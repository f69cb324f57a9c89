//! Quality-of-service class of a pod and the out-of-memory score that follows from it.

use crate::{quantity_bytes, quantity_milli};
use k8s_openapi::api::core::v1::{Container, Pod};

/// Class by how requests and limits are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    /// CPU and memory limits on every container, equal to the requests.
    Guaranteed,
    /// Some request or limit, but not Guaranteed.
    Burstable,
    /// No CPU or memory request or limit.
    BestEffort,
}

impl QosClass {
    /// The API's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The pod's class: what the API server recorded, else computed from the specification.
pub fn qos_class(pod: &Pod) -> QosClass {
    match pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        Some("Guaranteed") => return QosClass::Guaranteed,
        Some("Burstable") => return QosClass::Burstable,
        Some("BestEffort") => return QosClass::BestEffort,
        _ => {}
    }
    let Some(spec) = &pod.spec else { return QosClass::BestEffort };
    let resources = spec.init_containers.iter().flatten().chain(&spec.containers).map(|c| c.resources.as_ref());
    let pod_level = spec.resources.as_ref();
    let lists: Vec<_> = match pod_level {
        Some(r) if r.requests.is_some() || r.limits.is_some() => vec![Some(r)],
        _ => resources.collect(),
    };
    let (mut any, mut all) = (false, true);
    for resource in lists {
        for name in ["cpu", "memory"] {
            let limit = resource.and_then(|r| r.limits.as_ref()?.get(name)).map(quantity_milli);
            let request = resource.and_then(|r| r.requests.as_ref()?.get(name)).map(quantity_milli);
            let (limit, request) = (limit.filter(|v| *v > 0), request.filter(|v| *v > 0));
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, all) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// How eagerly the kernel kills this container when memory runs out: -997 to 1000, by class and share of node memory.
pub fn oom_score_adj(class: QosClass, critical: bool, container: &Container, node_memory_bytes: i64) -> i64 {
    if critical {
        return -997;
    }
    match class {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = container.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("memory"));
            let request = request.map(quantity_bytes).unwrap_or(0);
            let score = 1000 - (1000 * request).checked_div(node_memory_bytes.max(1)).unwrap_or(0);
            score.clamp(3, 999)
        }
    }
}

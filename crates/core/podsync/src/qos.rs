//! Quality-of-service class of a pod and the out-of-memory score that follows from it.

use crate::{is_sidecar, pod_total, quantity_bytes, quantity_milli};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

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

/// How eagerly the kernel kills this container of the pod when memory runs out: -997 to 1000, by class and share of node
/// memory. What the pod requests beyond its containers is shared among them, and a sidecar goes no sooner than what it
/// serves.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: i64) -> i64 {
    match (qos_class(pod), &pod.spec) {
        (_, Some(spec)) if is_node_critical(spec) => -997,
        (QosClass::Guaranteed, _) => -997,
        (QosClass::Burstable, Some(spec)) => {
            let shared = shared_memory(spec);
            let score = |request: i64| {
                let request = i128::from(request) + i128::from(shared);
                1000 - (1000 * request).checked_div(i128::from(node_memory_bytes.max(1))).unwrap_or(0)
            };
            let own = score(memory_request(container));
            let least = spec.containers.iter().map(memory_request).min();
            let sidecar = spec.init_containers.iter().flatten().any(|c| c.name == container.name && is_sidecar(c));
            let score = least.filter(|_| sidecar).map_or(own, |least| own.min(score(least)));
            i64::try_from(score.clamp(3, 999)).unwrap_or(999)
        }
        _ => 1000,
    }
}

fn is_node_critical(spec: &PodSpec) -> bool {
    spec.priority_class_name.as_deref() == Some("system-node-critical")
}

fn memory_request(container: &Container) -> i64 {
    let request = container.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("memory"));
    request.map(quantity_bytes).unwrap_or(0)
}

/// Each container's share of the memory that the pod requests as a whole and its containers do not.
fn shared_memory(spec: &PodSpec) -> i64 {
    let whole = spec.resources.as_ref().and_then(|whole| whole.requests.as_ref()?.get("memory"));
    let Some(whole) = whole.map(quantity_bytes).filter(|whole| *whole > 0) else { return 0 };
    let alone = PodSpec { resources: None, overhead: None, ..spec.clone() };
    let claimed = pod_total(&alone, "memory", false).unwrap_or(0);
    let containers = spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len);
    (whole - claimed) / i64::try_from(containers.max(1)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn memory(request: &str) -> Value {
        if request.is_empty() { Value::Null } else { json!({"requests": {"memory": request}}) }
    }

    #[test]
    fn who_asked_for_less_goes_first() {
        // request of the whole pod, of a sidecar and of two containers; scores of the sidecar and the first container
        let table = [
            ("", ["", "300", "300"], (700, 700)),
            ("", ["100", "300", "200"], (800, 700)),
            ("", ["400", "300", "200"], (600, 700)),
            ("600", ["", "", ""], (800, 800)),
            ("900", ["100", "300", "200"], (700, 600)),
            ("", ["1", "999", "999"], (3, 3)),
            ("", ["1", "0", "0"], (999, 999)),
        ];
        for (whole, [sidecar, first, second], expected) in table {
            let spec = json!({"resources": memory(whole),
                "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": memory(sidecar)}],
                "containers": [{"name": "a", "resources": memory(first)}, {"name": "b", "resources": memory(second)}]});
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            let spec = pod.spec.as_ref().unwrap();
            let score = |container: &Container| oom_score_adj(&pod, container, 1000);
            let sidecar = score(&spec.init_containers.as_ref().unwrap()[0]);
            assert_eq!((sidecar, score(&spec.containers[0])), expected, "{spec:?}");
        }
    }

    #[test]
    fn only_what_the_node_lives_on_is_spared_by_its_name() {
        let pod = |class: &str| -> Pod {
            let spec = json!({"priority": 2_000_000_000, "priorityClassName": class, "containers": [{"name": "c"}]});
            serde_json::from_value(json!({"spec": spec})).unwrap()
        };
        let score = |pod: Pod| oom_score_adj(&pod, &pod.spec.as_ref().unwrap().containers[0], 1000);
        assert_eq!((score(pod("system-node-critical")), score(pod("system-cluster-critical"))), (-997, 1000));
    }
}

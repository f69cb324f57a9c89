//! Which pod goes when the node runs out of something, and what it is told; pods that exceed their own storage limits.

use crate::{pod_total, quantity_bytes};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use meta::quantity::{Format, Quantity};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A node condition stands this long after its cause was last seen, so that it does not flap.
pub const PRESSURE_STANDS: SignedDuration = SignedDuration::from_secs(300);
/// Priority from which on a pod is critical to the system.
const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// What the node runs out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Memory in bytes.
    Memory,
    /// Bytes on the node's disk.
    Storage,
    /// Files on the node's disk.
    Inodes,
    /// Process ids.
    Processes,
}

impl Resource {
    /// The word in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Storage => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Processes => "pids",
        }
    }

    /// The node condition that it causes.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Storage | Self::Inodes => "DiskPressure",
            Self::Processes => "PIDPressure",
        }
    }
}

/// A resource of the node: what is left, and how little is too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Which resource.
    pub resource: Resource,
    /// What is left of it.
    pub available: i64,
    /// The node is under pressure below this.
    pub threshold: i64,
}

impl Level {
    /// Whether too little is left.
    pub fn is_low(&self) -> bool {
        self.available < self.threshold
    }
}

/// What one container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUse {
    /// Working set in bytes.
    pub memory: i64,
    /// Writable layer and logs in bytes.
    pub storage: i64,
}

/// What one pod uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUse {
    /// Working set in bytes.
    pub memory: i64,
    /// Writable layers, logs and volumes on the node's disk in bytes.
    pub storage: i64,
    /// Files in them.
    pub inodes: i64,
    /// Processes and threads.
    pub processes: i64,
    /// By container name.
    pub containers: BTreeMap<String, ContainerUse>,
    /// Bytes by volume name.
    pub volumes: BTreeMap<String, i64>,
}

/// When each resource was last found low.
pub type LastLow = BTreeMap<Resource, Timestamp>;

/// Notes what is low now, and names the conditions that stand, each once.
pub fn conditions(last_low: &mut LastLow, levels: &[Level], now: Timestamp) -> Vec<&'static str> {
    last_low.extend(levels.iter().filter(|level| level.is_low()).map(|level| (level.resource, now)));
    last_low.retain(|_, at| now.duration_since(*at) < PRESSURE_STANDS);
    let mut standing: Vec<&'static str> = last_low.keys().map(|resource| resource.condition()).collect();
    standing.dedup();
    standing
}

/// Pods that the system needs: static ones, and those of a system priority class. They are never evicted.
pub fn is_critical(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let source = annotations.and_then(|a| a.get("kubernetes.io/config.source"));
    let priority = pod.spec.as_ref().and_then(|s| s.priority);
    source.is_some_and(|source| source != "api") || priority.is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY)
}

fn requested(pod: &Pod, resource: Resource) -> i64 {
    let spec = pod.spec.as_ref();
    match resource {
        Resource::Memory | Resource::Storage => spec.and_then(|s| pod_total(s, resource.as_str(), false)).unwrap_or(0),
        Resource::Inodes | Resource::Processes => 0,
    }
}

fn used(of: &PodUse, resource: Resource) -> i64 {
    match resource {
        Resource::Memory => of.memory,
        Resource::Storage => of.storage,
        Resource::Inodes => of.inodes,
        Resource::Processes => of.processes,
    }
}

/// Who goes first: pods above their request, then low priority, then the largest excess.
fn compare(resource: Resource, a: (&Pod, &PodUse), b: (&Pod, &PodUse)) -> Ordering {
    let excess = |(pod, of): (&Pod, &PodUse)| used(of, resource) - requested(pod, resource);
    let priority = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
    let exceeds = |pair: (&Pod, &PodUse)| resource != Resource::Processes && excess(pair) > 0;
    exceeds(b).cmp(&exceeds(a)).then(priority(a.0).cmp(&priority(b.0))).then(excess(b).cmp(&excess(a)))
}

/// The pod to evict for a low resource, as its place in `pods`; `None` if there is none that may go.
pub fn victim(level: &Level, pods: &[(&Pod, &PodUse)]) -> Option<usize> {
    let candidates = (0..pods.len()).filter(|at| !is_critical(pods[*at].0));
    candidates.min_by(|a, b| compare(level.resource, pods[*a], pods[*b]))
}

fn binary(bytes: i64) -> String {
    Quantity::from_units(bytes, Format::BinarySi).to_string()
}

fn request_text(container: &Container, name: &str) -> (i64, String) {
    let request = container.resources.as_ref().and_then(|r| r.requests.as_ref()?.get(name));
    request.map_or((0, "0".to_string()), |q| (quantity_bytes(q), q.0.clone()))
}

/// What the evicted pod is told.
pub fn message(level: &Level, pod: &Pod, of: &PodUse) -> String {
    let name = level.resource.as_str();
    let amount = |value: i64| match level.resource {
        Resource::Memory | Resource::Storage => binary(value),
        Resource::Inodes | Resource::Processes => value.to_string(),
    };
    let (threshold, available) = (amount(level.threshold), amount(level.available));
    let mut text =
        format!("The node was low on resource: {name}. Threshold quantity: {threshold}, available: {available}. ");
    let Some(spec) = &pod.spec else { return text };
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let Some(own) = of.containers.get(&container.name) else { continue };
        let has = match level.resource {
            Resource::Memory => own.memory,
            Resource::Storage => own.storage,
            Resource::Inodes | Resource::Processes => continue,
        };
        let (request, request_text) = request_text(container, name);
        if has > request {
            let _ = write!(
                text,
                "Container {} was using {}, request is {request_text}, has larger consumption of {name}. ",
                container.name,
                binary(has)
            );
        }
    }
    text
}

/// Whether some storage limit of the pod itself exists, so that its use has to be measured.
pub fn has_storage_limit(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let limited = |c: &Container| {
        c.resources.as_ref().and_then(|r| r.limits.as_ref()).is_some_and(|l| l.contains_key("ephemeral-storage"))
    };
    let sized = spec.volumes.iter().flatten().filter_map(|v| v.empty_dir.as_ref()?.size_limit.as_ref());
    sized.map(quantity_bytes).any(|size| size > 0) || spec.containers.iter().any(limited)
}

/// Why the pod has to go for exceeding its own limits, if it does.
pub fn over_own_limit(pod: &Pod, of: &PodUse) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    for volume in spec.volumes.iter().flatten() {
        let Some(limit) = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref()) else { continue };
        let size = quantity_bytes(limit);
        if size > 0 && of.volumes.get(&volume.name).is_some_and(|used| *used > size) {
            return Some(format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ", volume.name, limit.0));
        }
    }
    if let Some(limit) = pod_total(spec, "ephemeral-storage", true).filter(|limit| *limit > 0 && of.storage > *limit) {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            binary(limit)
        ));
    }
    for container in &spec.containers {
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        let Some(limit) = limits.and_then(|l| l.get("ephemeral-storage")) else { continue };
        let over = of.containers.get(&container.name).is_some_and(|own| own.storage > quantity_bytes(limit));
        if over {
            return Some(format!(
                "Container {} exceeded its local ephemeral storage limit \"{}\". ",
                container.name, limit.0
            ));
        }
    }
    None
}

/// Whether a node with these standing conditions refuses a new pod; the message for it.
pub fn refuses(pod: &Pod, standing: &[&str]) -> Option<String> {
    if standing.is_empty() || is_critical(pod) {
        return None;
    }
    if standing == ["MemoryPressure"] {
        let best_effort = crate::qos_class(pod) == crate::QosClass::BestEffort;
        let tolerates = pod.spec.as_ref().and_then(|s| s.tolerations.as_ref()).is_some_and(|list| {
            list.iter().any(|t| {
                let key = t.key.as_deref().unwrap_or("");
                let effect = t.effect.as_deref().unwrap_or("");
                let any = key.is_empty() && t.operator.as_deref() == Some("Exists");
                (any || key == "node.kubernetes.io/memory-pressure") && matches!(effect, "" | "NoSchedule")
            })
        });
        if !best_effort || tolerates {
            return None;
        }
    }
    Some(format!("The node had condition: [{}]. ", standing.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, request: &str, priority: i32) -> Pod {
        let resources = json!({"requests": {"memory": request}});
        serde_json::from_value(json!({"metadata": {"name": name},
            "spec": {"priority": priority, "containers": [{"name": "c", "resources": resources}]}}))
        .unwrap()
    }

    fn memory(mebibytes: i64) -> PodUse {
        let bytes = mebibytes << 20;
        let own = ContainerUse { memory: bytes, storage: 0 };
        PodUse { memory: bytes, processes: mebibytes, containers: [("c".to_string(), own)].into(), ..PodUse::default() }
    }

    #[test]
    fn who_takes_more_than_asked_goes_before_priority_and_size() {
        let rows = [
            ("within/64Mi/0/50 over/64Mi/10/70", "over"),
            ("low/0/0/10 high/0/10/500", "low"),
            ("small/0/0/10 large/0/0/20", "large"),
            ("critical/0/2000000000/900 other/64Mi/1000/10", "other"),
        ];
        let level = Level { resource: Resource::Memory, available: 50 << 20, threshold: 100 << 20 };
        for (text, expected) in rows {
            let all: Vec<(Pod, PodUse)> = text
                .split(' ')
                .map(|word| {
                    let part: Vec<&str> = word.split('/').collect();
                    (pod(part[0], part[1], part[2].parse().unwrap()), memory(part[3].parse().unwrap()))
                })
                .collect();
            let pairs: Vec<(&Pod, &PodUse)> = all.iter().map(|(pod, of)| (pod, of)).collect();
            let at = victim(&level, &pairs).unwrap();
            assert_eq!(pairs[at].0.metadata.name.as_deref(), Some(expected), "{text}");
        }
        let critical = pod("static", "0", SYSTEM_CRITICAL_PRIORITY);
        assert_eq!(victim(&level, &[(&critical, &memory(1))]), None);
        let by_processes = Level { resource: Resource::Processes, available: 1, threshold: 2 };
        let (few, many) = (pod("few", "0", 0), pod("many", "1Gi", 0));
        assert_eq!(victim(&by_processes, &[(&few, &memory(1)), (&many, &memory(9))]), Some(1));
    }

    #[test]
    fn the_message_names_amounts_and_containers() {
        let level = Level { resource: Resource::Memory, available: 50 << 20, threshold: 100 << 20 };
        let text = message(&level, &pod("p", "16Mi", 0), &memory(20));
        assert_eq!(
            text,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
             Container c was using 20Mi, request is 16Mi, has larger consumption of memory. "
        );
    }

    #[test]
    fn limits_of_the_pod_itself() {
        let spec = json!({
            "containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "10Mi"}}}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "5Mi"}}],
        });
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        assert!(has_storage_limit(&pod));
        let of = |volume: i64, total: i64, own: i64| PodUse {
            storage: total << 20,
            volumes: [("v".to_string(), volume << 20)].into(),
            containers: [("c".to_string(), ContainerUse { memory: 0, storage: own << 20 })].into(),
            ..PodUse::default()
        };
        let rows = [
            (of(5, 10, 10), None),
            (of(6, 10, 10), Some("Usage of EmptyDir volume \"v\" exceeds the limit \"5Mi\". ")),
            (of(1, 11, 10), Some("Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. ")),
            (of(1, 10, 11), Some("Container c exceeded its local ephemeral storage limit \"10Mi\". ")),
        ];
        for (of, expected) in rows {
            assert_eq!(over_own_limit(&pod, &of).as_deref(), expected);
        }
    }

    #[test]
    fn conditions_stand_for_a_while() {
        let mut last = LastLow::new();
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let level = |available: i64| [Level { resource: Resource::Storage, available, threshold: 10 }];
        assert!(conditions(&mut last, &level(10), at(0)).is_empty());
        assert_eq!(conditions(&mut last, &level(9), at(1)), ["DiskPressure"]);
        assert_eq!(conditions(&mut last, &level(10), at(300)), ["DiskPressure"]);
        assert!(conditions(&mut last, &level(10), at(301)).is_empty());
    }

    #[test]
    fn a_node_under_pressure_refuses_what_would_make_it_worse() {
        let pod = |spec: Value| -> Pod { serde_json::from_value(json!({"spec": spec})).unwrap() };
        let modest = pod(json!({"containers": [{"name": "c"}]}));
        let asking = pod(json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "1Mi"}}}]}));
        assert_eq!(refuses(&modest, &[]), None);
        assert_eq!(refuses(&asking, &["MemoryPressure"]), None);
        let text = "The node had condition: [MemoryPressure]. ";
        assert_eq!(refuses(&modest, &["MemoryPressure"]).as_deref(), Some(text));
        let text = "The node had condition: [DiskPressure]. ";
        assert_eq!(refuses(&asking, &["DiskPressure"]).as_deref(), Some(text));
    }
}

//! What the node has granted to a pod: a resize counts from when the node has room for it, and until then the old one does.

use crate::admission::{NodeFacts, room};
use crate::resources::{Amounts, RESIZABLE, bare, equal, same};
use crate::whole::{pod_requests, pod_resources};
use crate::{QosClass, Waiting, all_containers, qos_class};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodCondition, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use meta::quantity::Quantity as Amount;
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The condition of a pod that asks for resources that the node has not granted.
pub const RESIZE_PENDING: &str = "PodResizePending";
/// The condition of a pod whose containers do not all run with the resources that it was granted.
pub const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";
/// Why a resize waits. Upstream's other reason, `Infeasible`, belongs to exclusive CPUs, which this node does not give;
/// what no room on the node can satisfy is refused by the API server.
pub const DEFERRED: &str = "Deferred";

/// Resources granted to the containers of a pod by name, and to the pod as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grant {
    pod: Option<ResourceRequirements>,
    containers: BTreeMap<String, ResourceRequirements>,
}

impl Grant {
    /// What the pod asks for.
    pub fn of(pod: &Pod) -> Grant {
        let Some(spec) = &pod.spec else { return Grant::default() };
        let own = |c: &Container| (c.name.clone(), c.resources.clone().unwrap_or_default());
        Grant { pod: spec.resources.clone(), containers: all_containers(spec).map(|(_, c)| own(c)).collect() }
    }

    /// What an earlier process granted, as far as the pod's status says; else what the pod asks for.
    pub fn before(pod: &Pod) -> Grant {
        let mut grant = Grant::of(pod);
        let Some(status) = &pod.status else { return grant };
        let lists = [&status.init_container_statuses, &status.container_statuses];
        let told = |known: &&ContainerStatus| known.resources.is_some();
        for known in lists.into_iter().flatten().flatten().filter(told) {
            let limits = known.resources.as_ref().and_then(|has| has.limits.clone());
            if let Some(own) = grant.containers.get_mut(&known.name) {
                (own.requests, own.limits) = (known.allocated_resources.clone(), limits);
            }
        }
        if let (Some(whole), Some(spec), Some(has)) = (&mut grant.pod, &pod.spec, &status.resources) {
            // what the status shows that the pod does not state comes from its containers
            let overhead = &spec.overhead;
            restore(&mut whole.requests, &pod_requests(spec), &status.allocated_resources, overhead);
            restore(&mut whole.limits, &pod_resources(spec).limits.unwrap_or_default(), &has.limits, overhead);
        }
        grant
    }

    /// Whether this is what the pod asks for.
    pub fn satisfies(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return true };
        let granted = |c: &Container| self.containers.get(&c.name).is_none_or(|own| same(own, bare(&c.resources)));
        same(bare(&self.pod), bare(&spec.resources)) && all_containers(spec).all(|(_, c)| granted(c))
    }

    /// The pod as it may run; `None` where it asks for what it was granted.
    pub fn applied(&self, pod: &Pod) -> Option<Pod> {
        if self.satisfies(pod) {
            return None;
        }
        let mut pod = pod.clone();
        let spec = pod.spec.as_mut()?;
        spec.resources.clone_from(&self.pod);
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            if let Some(own) = self.containers.get(&container.name) {
                container.resources = Some(own.clone());
            }
        }
        Some(pod)
    }
}

/// Turns what a pod asks for into what it was granted, where the two would not show as the same. The status shows
/// amounts with the overhead.
fn restore(stated: &mut Option<Amounts>, asked: &Amounts, shown: &Option<Amounts>, overhead: &Option<Amounts>) {
    let Some(stated) = stated else { return };
    for name in RESIZABLE.into_iter().filter(|name| stated.contains_key(*name)).collect::<Vec<_>>() {
        match shown.as_ref().and_then(|shown| shown.get(name)) {
            Some(amount) if asked.get(name).is_none_or(|asked| !equal(asked, amount)) => {
                let overhead = overhead.as_ref().and_then(|overhead| overhead.get(name));
                let own = match (amount.0.parse::<Amount>(), overhead.map(|overhead| overhead.0.parse::<Amount>())) {
                    (Ok(amount), Some(Ok(overhead))) => Quantity((amount - overhead).to_string()),
                    _ => amount.clone(),
                };
                stated.insert(name.to_owned(), own);
            }
            Some(_) => {}
            None => {
                stated.remove(name);
            }
        }
    }
}

/// Whether the node has room for what `pod` asks for. `others` are the other pods as they may run; `waiting` are those
/// of them that ask for more, as they ask: whoever ranks higher is served first.
///
/// # Errors
/// The reason and message of a resize that has to wait.
pub fn has_room(pod: &Pod, others: &[&Pod], waiting: &[&Pod], facts: &NodeFacts) -> Result<(), Waiting> {
    let mut taken: Vec<&Pod> = others.to_vec();
    let mut before: Vec<&Pod> = waiting.iter().copied().filter(|other| rank(other) < rank(pod)).collect();
    before.sort_by_key(|other| rank(other));
    for first in before {
        let rest: Vec<&Pod> = taken.iter().copied().filter(|other| other.metadata.uid != first.metadata.uid).collect();
        if room(first, &rest, facts).is_ok() {
            taken = rest;
            taken.push(first);
        }
    }
    room(pod, &taken, facts).map_err(|waiting| Waiting { reason: DEFERRED.into(), ..waiting })
}

/// The pod's condition of this type.
pub fn condition<'a>(pod: &'a Pod, name: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == name)
}

/// Who gets room first: higher priority, guaranteed, longer waiting.
fn rank(pod: &Pod) -> (Reverse<i32>, bool, jiff::Timestamp, Option<&String>) {
    let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
    let since = condition(pod, RESIZE_PENDING).and_then(|c| c.last_transition_time.as_ref());
    let since = since.map_or(jiff::Timestamp::MAX, |time| time.0);
    (Reverse(priority), qos_class(pod) != QosClass::Guaranteed, since, pod.metadata.uid.as_ref())
}

/// The message of a resize's event: what has happened, then the resources that the pod asks for in that generation.
pub fn resize_message(what: &str, pod: &Pod, generation: Option<i64>, error: &str) -> String {
    let mut summary = Map::new();
    let spec = pod.spec.clone().unwrap_or_default();
    let list = |containers: &[Container]| -> Value {
        let one = |c: &Container| json!({"name": c.name, "resources": c.resources.clone().unwrap_or_default()});
        containers.iter().map(one).collect()
    };
    if let Some(init) = spec.init_containers.as_deref().filter(|init| !init.is_empty()) {
        summary.insert("initContainers".into(), list(init));
    }
    summary.insert("containers".into(), list(&spec.containers));
    summary.insert("generation".into(), generation.unwrap_or(0).into());
    if !error.is_empty() {
        summary.insert("error".into(), error.into());
    }
    format!("{what}: {}", Value::Object(summary))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, cpu: &str, priority: i32) -> Pod {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let value =
            json!({"metadata": {"name": name, "uid": name}, "spec": {"priority": priority, "containers": [container]}});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_pod_runs_with_what_it_was_granted() {
        let (small, large) = (pod("p", "1", 0), pod("p", "3", 0));
        let grant = Grant::of(&small);
        assert!(grant.applied(&small).is_none());
        assert!(grant.applied(&pod("p", "1000m", 0)).is_none(), "the same amount in other words is no resize");
        let runs = grant.applied(&large).unwrap();
        assert_eq!(Grant::of(&runs), grant);
    }

    #[test]
    fn the_status_remembers_a_grant() {
        let mut known = pod("p", "3", 0);
        let status = json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true,
            "restartCount": 0, "allocatedResources": {"cpu": "1"}, "resources": {"requests": {"cpu": "1"}}}]});
        known.status = serde_json::from_value(status).unwrap();
        assert_eq!(Grant::before(&known), Grant::of(&pod("p", "1", 0)));
        // a container that had nothing and asks for something has not got it yet
        let nothing = json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true,
            "restartCount": 0, "resources": {}}]});
        known.status = serde_json::from_value(nothing).unwrap();
        assert!(!Grant::before(&known).satisfies(&known));
        known.status = None;
        assert!(Grant::before(&known).satisfies(&known), "nothing is known of a pod that has not begun");
    }

    #[test]
    fn the_status_remembers_a_grant_of_the_whole() {
        let pod = |whole: Value| -> Pod {
            let spec = json!({"resources": whole, "overhead": {"cpu": "1"},
                "containers": [{"name": "c", "resources": {"requests": {"memory": "1Mi", "e.io/x": "1"}}}]});
            serde_json::from_value(json!({"spec": spec})).unwrap()
        };
        let told = |mut asks: Pod, has: &Pod| {
            let spec = has.spec.as_ref().unwrap();
            let (allocated, resources) = (Some(pod_requests(spec)), Some(pod_resources(spec)));
            let status = json!({"allocatedResources": allocated, "resources": resources});
            asks.status = serde_json::from_value(status).unwrap();
            asks
        };
        let small = pod(json!({"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}));
        assert!(Grant::before(&told(small.clone(), &small)).satisfies(&small));
        for whole in [
            json!({"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}}),
            json!({"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}}),
            json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
        ] {
            let large = pod(whole);
            let known = told(large.clone(), &small);
            assert!(!Grant::before(&known).satisfies(&large), "{large:?}");
        }
    }

    #[test]
    fn room_goes_to_who_ranks_higher() {
        let facts = NodeFacts { allocatable: [("cpu".to_string(), 4000)].into(), ..NodeFacts::default() };
        let (low, high) = (pod("low", "1", 1), pod("high", "1", 2));
        let (low_wants, high_wants) = (pod("low", "3", 1), pod("high", "3", 2));
        assert_eq!(has_room(&high_wants, &[&low], &[&low_wants], &facts), Ok(()));
        let waits = has_room(&low_wants, &[&high], &[&high_wants], &facts).unwrap_err();
        let message = "Node didn't have enough resource: cpu, requested: 3000, used: 3000, capacity: 4000";
        assert_eq!((waits.reason.as_str(), waits.message.as_str()), ("Deferred", message));
        let since = |pod: &mut Pod, time: &str| {
            let waits = json!({"type": RESIZE_PENDING, "status": "True", "lastTransitionTime": time});
            pod.status = serde_json::from_value(json!({"conditions": [waits]})).unwrap();
        };
        let (mut early, mut late) = (pod("z", "3", 0), pod("a", "3", 0));
        since(&mut early, "2026-01-01T00:00:00Z");
        since(&mut late, "2026-01-01T00:00:01Z");
        let (a, z) = (pod("a", "1", 0), pod("z", "1", 0));
        assert_eq!(has_room(&early, &[&a], &[&late], &facts), Ok(()));
        assert!(has_room(&late, &[&z], &[&early], &facts).is_err());
        // who ranks higher and gets nothing in any case does not stand in the way
        assert_eq!(has_room(&low_wants, &[&high], &[&pod("high", "9", 2)], &facts), Ok(()));
    }

    #[test]
    fn events_tell_what_is_asked_for() {
        let text = resize_message("Pod resize Deferred", &pod("p", "1", 0), Some(3), "no room");
        let expected = r#"Pod resize Deferred: {"containers":[{"name":"c","resources":{"requests":{"cpu":"1"}}}],"error":"no room","generation":3}"#;
        assert_eq!(text, expected);
    }
}

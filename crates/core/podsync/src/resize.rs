//! In-place resize: which running containers have other resources than their pod asks for, and how they get them.

use crate::resources::{RESIZABLE, effective_resources, same_amount};
use crate::{ContainerState, Memory, Observed, all_containers, pod_limits};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

/// A container that has to be brought to the resources in the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// Runtime id.
    pub id: String,
    /// Name in the pod.
    pub name: String,
    /// The container's `resizePolicy` wants a restart for one of the changes.
    pub restart: bool,
    /// The new memory limit in bytes, where it is lower than before.
    pub shrinks_to: Option<i64>,
}

/// The resizes that are due or under way.
pub fn resizes(pod: &Pod, observed: &Observed, memory: &Memory) -> Vec<Resize> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut due = Vec::new();
    for (_, container) in all_containers(spec) {
        let running = observed.latest(&container.name).filter(|c| c.state == ContainerState::Running);
        let Some(running) = running else { continue };
        let wanted = effective_resources(spec, container);
        let Some(has) = memory.resources.get(&running.id).filter(|has| !runs_with(has, &wanted)) else { continue };
        let restart = RESIZABLE.into_iter().any(|name| differs(has, &wanted, name) && restarts(container, name));
        let limit = |r: &ResourceRequirements| r.limits.as_ref()?.get("memory").map(crate::quantity_bytes);
        let shrinks_to = limit(&wanted).filter(|new| limit(has).is_none_or(|old| *new < old));
        due.push(Resize { id: running.id.clone(), name: container.name.clone(), restart, shrinks_to });
    }
    due
}

/// Whether the pod, or a container of it, runs with other resources than it was granted.
pub fn is_resizing(pod: &Pod, observed: &Observed, memory: &Memory) -> bool {
    let whole = memory.pod_limits.zip(pod.spec.as_ref()).is_some_and(|(has, spec)| has != pod_limits(spec));
    whole || !resizes(pod, observed, memory).is_empty()
}

/// Whether a container with these resources needs no resize to have the wanted ones.
pub(crate) fn runs_with(has: &ResourceRequirements, wanted: &ResourceRequirements) -> bool {
    !RESIZABLE.into_iter().any(|name| differs(has, wanted, name))
}

fn differs(has: &ResourceRequirements, wanted: &ResourceRequirements, name: &str) -> bool {
    !same_amount(&has.requests, &wanted.requests, name) || !same_amount(&has.limits, &wanted.limits, name)
}

fn restarts(container: &Container, name: &str) -> bool {
    let policies = container.resize_policy.iter().flatten();
    policies.filter(|p| p.resource_name == name).any(|p| p.restart_policy == "RestartContainer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_change_asks_for_what_its_policy_says() {
        let pod = |cpu: &str, memory: &str| -> Pod {
            let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
            let resources = json!({"requests": {"cpu": cpu, "memory": memory}});
            let container = json!({"name": "c", "resources": resources, "resizePolicy": policy});
            serde_json::from_value(json!({"spec": {"containers": [container]}})).unwrap()
        };
        let now = jiff::Timestamp::UNIX_EPOCH;
        let running = crate::Container {
            id: "1".into(),
            name: "c".into(),
            sandbox_id: "s".into(),
            attempt: 0,
            state: ContainerState::Running,
            created: now,
            started: Some(now),
            finished: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            log_path: String::new(),
        };
        let observed = Observed { containers: vec![running], ..Default::default() };
        let has = pod("1", "1Gi").spec.unwrap().containers[0].resources.clone().unwrap();
        let memory = Memory { resources: [("1".to_string(), has)].into(), ..Default::default() };
        assert!(resizes(&pod("1", "1Gi"), &observed, &memory).is_empty());
        assert!(resizes(&pod("1000m", "1024Mi"), &observed, &memory).is_empty());
        assert!(!resizes(&pod("2", "1Gi"), &observed, &memory)[0].restart);
        assert!(resizes(&pod("1", "2Gi"), &observed, &memory)[0].restart);
        // what it inherits counts like what it has
        let mut whole = pod("1", "1Gi");
        let limits = |memory: &str| serde_json::from_value(json!({"limits": {"cpu": "2", "memory": memory}})).unwrap();
        whole.spec.as_mut().unwrap().resources = limits("2Gi");
        let due = resizes(&whole, &observed, &memory).remove(0);
        assert_eq!((due.restart, due.shrinks_to), (true, Some(2 << 30)));
        let spec = whole.spec.as_mut().unwrap();
        let has = effective_resources(spec, &spec.containers[0]);
        let memory = Memory { resources: [("1".to_string(), has)].into(), ..Default::default() };
        assert!(resizes(&whole, &observed, &memory).is_empty());
        whole.spec.as_mut().unwrap().resources = limits("3Gi");
        let due = resizes(&whole, &observed, &memory).remove(0);
        assert_eq!((due.restart, due.shrinks_to), (true, None));
    }
}

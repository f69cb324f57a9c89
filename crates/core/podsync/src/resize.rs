//! In-place resize: which running containers have other resources than their pod asks for, and how they get them.

use crate::{ContainerKind, ContainerState, Memory, Observed, all_containers};
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
}

/// The resizes that are due or under way.
pub fn resizes(pod: &Pod, observed: &Observed, memory: &Memory) -> Vec<Resize> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut due = Vec::new();
    for (kind, container) in all_containers(spec) {
        let running = observed.latest(&container.name).filter(|c| c.state == ContainerState::Running);
        let Some(running) = running.filter(|_| kind != ContainerKind::Init) else {
            continue;
        };
        let wanted = container.resources.clone().unwrap_or_default();
        let Some(has) = memory.resources.get(&running.id).filter(|has| **has != wanted) else { continue };
        let restart =
            ["cpu", "memory"].into_iter().any(|name| differs(has, &wanted, name) && restarts(container, name));
        due.push(Resize { id: running.id.clone(), name: container.name.clone(), restart });
    }
    due
}

fn differs(has: &ResourceRequirements, wanted: &ResourceRequirements, name: &str) -> bool {
    let pair = |r: &ResourceRequirements| {
        let get =
            |list: &Option<std::collections::BTreeMap<String, _>>| list.as_ref().and_then(|l| l.get(name).cloned());
        (get(&r.requests), get(&r.limits))
    };
    pair(has) != pair(wanted)
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
        assert!(!resizes(&pod("2", "1Gi"), &observed, &memory)[0].restart);
        assert!(resizes(&pod("1", "2Gi"), &observed, &memory)[0].restart);
    }
}

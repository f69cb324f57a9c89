//! What a pod as a whole asks for and may use, as its status shows it.

use crate::pod_limits;
use crate::resources::{Amounts, RESIZABLE, bare};
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use meta::quantity::Quantity as Amount;
use std::collections::BTreeMap;

type Sums = BTreeMap<String, Amount>;

fn read(list: Option<&Amounts>) -> impl Iterator<Item = (String, Amount)> {
    list.into_iter().flatten().filter_map(|(name, amount)| Some((name.clone(), amount.0.parse().ok()?)))
}

fn add(sums: &mut Sums, more: &Sums) {
    for (name, amount) in more {
        sums.entry(name.clone()).and_modify(|sum| *sum += *amount).or_insert(*amount);
    }
}

fn raise(sums: &mut Sums, other: &Sums) {
    for (name, amount) in other {
        sums.entry(name.clone()).and_modify(|sum| *sum = (*sum).max(*amount)).or_insert(*amount);
    }
}

/// Sums over the containers: the larger of what runs together and of each init container with the sidecars before it.
fn sums(spec: &PodSpec, limits: bool) -> Sums {
    let of = |container: &Container| -> Sums {
        let own = bare(&container.resources);
        read(if limits { own.limits.as_ref() } else { own.requests.as_ref() }).collect()
    };
    let (mut running, mut sidecars, mut starting) = (Sums::new(), Sums::new(), Sums::new());
    spec.containers.iter().for_each(|container| add(&mut running, &of(container)));
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container);
        if crate::is_sidecar(container) {
            add(&mut running, &needed);
            add(&mut sidecars, &needed);
            raise(&mut starting, &sidecars);
        } else {
            add(&mut needed, &sidecars);
            raise(&mut starting, &needed);
        }
    }
    raise(&mut running, &starting);
    running
}

/// What the pod states replaces what its containers do; overhead comes on top.
fn total(spec: &PodSpec, limits: bool) -> Amounts {
    let whole = bare(&spec.resources);
    let stated = read(if limits { whole.limits.as_ref() } else { whole.requests.as_ref() });
    let mut all = sums(spec, limits);
    all.extend(stated.filter(|(name, _)| is_pod_level(name)));
    let overhead: Sums = read(spec.overhead.as_ref()).filter(|(name, _)| !limits || all.contains_key(name)).collect();
    add(&mut all, &overhead);
    all.into_iter().map(|(name, amount)| (name, Quantity(amount.to_string()))).collect()
}

fn is_pod_level(name: &str) -> bool {
    RESIZABLE.contains(&name) || name.starts_with("hugepages-")
}

/// All that the pod asks for: its `status.allocatedResources`.
pub fn pod_requests(spec: &PodSpec) -> Amounts {
    total(spec, false)
}

/// What the pod runs with as a whole: its `status.resources`. CPU and memory are limited only where the pod or each of
/// its containers is.
pub fn pod_resources(spec: &PodSpec) -> ResourceRequirements {
    let (mut requests, mut limits) = (pod_requests(spec), total(spec, true));
    let group = pod_limits(spec);
    limits.retain(|name, _| match name.as_str() {
        "cpu" => group.cpu_quota_us.is_some(),
        "memory" => group.memory_bytes.is_some(),
        other => is_pod_level(other),
    });
    requests.retain(|name, _| is_pod_level(name));
    let some = |list: Amounts| (!list.is_empty()).then_some(list);
    ResourceRequirements { claims: None, limits: some(limits), requests: some(requests) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_status_of_a_pod_shows_what_it_has_as_a_whole() {
        // pod-level resources, containers, requests, limits
        let table: [(Value, Value, Value, Value); 5] = [
            (json!({}), json!([{}]), json!(null), json!(null)),
            (
                json!({}),
                json!([{"requests": {"cpu": "100m", "e.io/x": "1"}, "limits": {"cpu": "1"}}, {"requests": {"cpu": "1"}}]),
                json!({"cpu": "1100m"}),
                json!(null),
            ),
            (
                json!({}),
                json!([{"limits": {"memory": "1Mi"}}, {"limits": {"memory": "2Mi"}}]),
                json!(null),
                json!({"memory": "3Mi"}),
            ),
            (
                json!({"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}}),
                json!([{"requests": {"cpu": "1", "memory": "3Mi"}}, {}]),
                json!({"cpu": "2", "memory": "3Mi"}),
                json!({"memory": "1Gi"}),
            ),
            (json!({"limits": {"cpu": "0"}}), json!([{"limits": {"cpu": "1"}}, {}]), json!(null), json!(null)),
        ];
        for (whole, containers, requests, limits) in table {
            let containers = containers.as_array().unwrap().iter();
            let containers: Vec<_> = containers.map(|own| json!({"name": "c", "resources": own})).collect();
            let spec: PodSpec = serde_json::from_value(json!({"resources": whole, "containers": containers})).unwrap();
            let shown = serde_json::to_value(pod_resources(&spec)).unwrap();
            assert_eq!((&shown["requests"], &shown["limits"]), (&requests, &limits), "{spec:?}");
        }
    }
}

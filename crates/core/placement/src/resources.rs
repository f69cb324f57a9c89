//! Amounts of resources: what a pod asks for and what a node has left.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use meta::quantity::Quantity;

/// What a container without a CPU request counts as when nodes are scored, in thousandths.
const SCORED_CPU_DEFAULT: i64 = 100;
/// The same for memory, in bytes.
const SCORED_MEMORY_DEFAULT: i64 = 200 * 1024 * 1024;

/// CPU counts thousandths, everything else whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(pub BTreeMap<String, i64>);

impl Resources {
    pub fn parse(list: Option<&BTreeMap<String, Text>>) -> Self {
        let amounts = list.into_iter().flatten().filter_map(|(name, text)| {
            let quantity: Quantity = text.0.parse().ok()?;
            Some((name.clone(), if name == "cpu" { quantity.milli_value() } else { quantity.value() }))
        });
        Self(amounts.collect())
    }

    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.get(name).saturating_add(*amount);
            self.0.insert(name.clone(), sum);
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let rest = self.get(name).saturating_sub(*amount);
            self.0.insert(name.clone(), rest);
        }
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let most = self.get(name).max(*amount);
            self.0.insert(name.clone(), most);
        }
    }
}

/// What a pod asks for (first) and what it counts as in scores (second).
///
/// Containers and sidecars run together; an init container runs beside the sidecars declared before it; the pod needs
/// the larger of both, plus overhead. Amounts stated for the pod as a whole replace those of its containers. While a
/// container is resized, the larger of what is wanted and what is in effect counts.
pub fn pod_requests(spec: &PodSpec, status: &PodStatus) -> (Resources, Resources) {
    let requests = |container: &Container| in_effect(container, spec, status);
    let scored = |container: &Container| {
        let mut resources = requests(container);
        resources.0.entry("cpu".to_owned()).or_insert(SCORED_CPU_DEFAULT);
        resources.0.entry("memory".to_owned()).or_insert(SCORED_MEMORY_DEFAULT);
        resources
    };
    (total(spec, &requests), total(spec, &scored))
}

fn in_effect(container: &Container, spec: &PodSpec, status: &PodStatus) -> Resources {
    let stated = Resources::parse(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let is_init = spec.init_containers.iter().flatten().any(|other| other.name == container.name);
    let Some(known) = container_status(status, &container.name).filter(|_| !is_init || is_sidecar(container)) else {
        return stated;
    };
    let Some(resources) = &known.resources else { return stated };
    let mut amounts = Resources::parse(resources.requests.as_ref());
    amounts.raise_to(&Resources::parse(known.allocated_resources.as_ref()));
    let infeasible = |c: &k8s_openapi::api::core::v1::PodCondition| {
        c.type_ == "PodResizePending" && c.reason.as_deref() == Some("Infeasible")
    };
    if !status.conditions.iter().flatten().any(infeasible) {
        amounts.raise_to(&stated);
    }
    amounts
}

fn container_status<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    all.into_iter().find(|known| known.name == name)
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn total(spec: &PodSpec, of: &dyn Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container);
        if is_sidecar(container) {
            running.add(&needed);
            sidecars.add(&needed);
            starting.raise_to(&sidecars);
        } else {
            needed.add(&sidecars);
            starting.raise_to(&needed);
        }
    }
    running.raise_to(&starting);
    running.0.extend(Resources::parse(spec.resources.as_ref().and_then(|r| r.requests.as_ref())).0);
    running.add(&Resources::parse(spec.overhead.as_ref()));
    running
}

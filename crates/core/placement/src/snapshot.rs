//! The cluster as placement sees it: nodes with the pods that are on them or about to be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use meta::labels::Selector;

use crate::pod::PodInfo;
use crate::resources::Resources;
use crate::volumes::Volumes;

/// The part of a Node object that matters here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSpec {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    /// Size in bytes of each image on the node, by name.
    pub images: BTreeMap<String, i64>,
}

impl NodeSpec {
    /// What node selectors ask about.
    pub fn traits(&self) -> nodes::Traits<'_> {
        nodes::Traits { name: &self.name, labels: &self.labels }
    }

    pub fn new(node: Node) -> Self {
        let spec = node.spec.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let images =
            status.images.iter().flatten().flat_map(|image| {
                image.names.iter().flatten().map(|name| (name.clone(), image.size_bytes.unwrap_or(0)))
            });
        Self {
            name: node.metadata.name.unwrap_or_default(),
            labels: node.metadata.labels.unwrap_or_default(),
            taints: spec.taints.unwrap_or_default(),
            unschedulable: spec.unschedulable.unwrap_or(false),
            allocatable: Resources::parse(status.allocatable.as_ref().or(status.capacity.as_ref())),
            images: images.collect(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub spec: Arc<NodeSpec>,
    pub pods: Vec<Arc<PodInfo>>,
    pub requested: Resources,
    pub scored_requested: Resources,
    /// How many of the pods have terms about other pods.
    pub pods_with_terms: usize,
}

/// All known nodes. Pods of a node that is not known (yet) wait in a nodeless entry, so that order does not matter.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    waiting: BTreeMap<String, Vec<Arc<PodInfo>>>,
    /// Labels of namespaces, for terms that select namespaces.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Pods for which others made room, by node: their room is not given to pods of lower priority.
    nominated: BTreeMap<String, Vec<Arc<PodInfo>>>,
    /// Disruption budgets by namespace and name.
    budgets: BTreeMap<(String, String), Budget>,
    volumes: Arc<Volumes>,
}

/// The part of a PodDisruptionBudget that preemption respects as far as it can.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    pub selector: Option<Selector>,
    /// How many of its pods may go now.
    pub allowed: i64,
    /// Pods whose eviction is counted already.
    pub disrupted: BTreeSet<String>,
}

impl Budget {
    pub fn new(budget: &PodDisruptionBudget) -> Self {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selector = selector.and_then(|selector| serde_json::to_value(selector).ok());
        let status = budget.status.as_ref();
        Self {
            selector: selector.and_then(|selector| Selector::from_label_selector(&selector)),
            allowed: status.map_or(0, |status| i64::from(status.disruptions_allowed.unwrap_or(0))),
            disrupted: status
                .and_then(|s| s.disrupted_pods.as_ref())
                .into_iter()
                .flat_map(|p| p.keys().cloned())
                .collect(),
        }
    }

    /// Whether a pod of the budget's namespace is counted by it. A selector of everything protects nothing here, as
    /// upstream's preemption leaves it out.
    pub fn counts(&self, pod: &PodInfo) -> bool {
        let selected = self.selector.as_ref().is_some_and(|s| !s.is_empty() && s.matches(&pod.labels));
        selected && !self.disrupted.contains(&pod.name)
    }
}

impl Snapshot {
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name)
    }

    /// The same cluster with one node in another state.
    pub(crate) fn with_node(&self, node: NodeInfo) -> Self {
        let mut other = self.clone();
        other.nodes.insert(node.spec.name.clone(), node);
        other
    }

    /// Claims, volumes and classes.
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    pub fn volumes_mut(&mut self) -> &mut Volumes {
        Arc::make_mut(&mut self.volumes)
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn namespace(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(name)
    }

    pub fn set_namespace(&mut self, name: &str, labels: BTreeMap<String, String>) {
        self.namespaces.insert(name.to_owned(), labels);
    }

    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    pub fn set_node(&mut self, spec: Arc<NodeSpec>) {
        let name = spec.name.clone();
        self.nodes.entry(name.clone()).or_default().spec = spec;
        for pod in self.waiting.remove(&name).unwrap_or_default() {
            self.add_pod(&name, pod);
        }
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(node) = self.nodes.remove(name)
            && !node.pods.is_empty()
        {
            self.waiting.insert(name.to_owned(), node.pods);
        }
    }

    pub fn add_pod(&mut self, node: &str, pod: Arc<PodInfo>) {
        match self.nodes.get_mut(node) {
            Some(node) => node.add(pod),
            None => self.waiting.entry(node.to_owned()).or_default().push(pod),
        }
    }

    pub fn remove_pod(&mut self, node: &str, uid: &str) {
        if let Some(info) = self.nodes.get_mut(node) {
            info.remove(uid);
        } else if let Some(pods) = self.waiting.get_mut(node) {
            pods.retain(|pod| pod.uid != uid);
            if pods.is_empty() {
                self.waiting.remove(node);
            }
        }
    }

    /// Keeps room on a node for a pod, and no longer on any other.
    pub fn nominate(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.denominate(&pod.uid);
        self.nominated.entry(node.to_owned()).or_default().push(pod);
    }

    pub fn denominate(&mut self, uid: &str) {
        self.nominated.retain(|_, pods| {
            pods.retain(|pod| pod.uid != uid);
            !pods.is_empty()
        });
    }

    /// The node where room is kept for the pod.
    pub fn nomination(&self, uid: &str) -> Option<&str> {
        let found = self.nominated.iter().find(|(_, pods)| pods.iter().any(|pod| pod.uid == uid));
        found.map(|(node, _)| node.as_str())
    }

    pub fn nominated(&self, node: &str) -> &[Arc<PodInfo>] {
        self.nominated.get(node).map_or(&[], Vec::as_slice)
    }

    pub fn set_budget(&mut self, namespace: &str, name: &str, budget: Budget) {
        self.budgets.insert((namespace.to_owned(), name.to_owned()), budget);
    }

    pub fn remove_budget(&mut self, namespace: &str, name: &str) {
        self.budgets.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Each budget with its namespace.
    pub fn budgets(&self) -> impl Iterator<Item = (&str, &Budget)> {
        self.budgets.iter().map(|((namespace, _), budget)| (namespace.as_str(), budget))
    }
}

impl NodeInfo {
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored_requested.add(&pod.scored_requests);
        self.pods_with_terms += usize::from(!pod.terms.is_empty());
        self.pods.push(pod);
    }

    pub fn remove(&mut self, uid: &str) {
        if let Some(position) = self.pods.iter().position(|pod| pod.uid == uid) {
            let pod = self.pods.swap_remove(position);
            self.pods_with_terms -= usize::from(!pod.terms.is_empty());
            self.requested.subtract(&pod.requests);
            self.scored_requested.subtract(&pod.scored_requests);
        }
    }
}

//! The cluster as placement sees it: nodes with the pods that are on them or about to be.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::pod::PodInfo;
use crate::resources::Resources;

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
}

impl Snapshot {
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
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
        let Some(node) = self.nodes.get_mut(node) else {
            self.waiting.entry(node.to_owned()).or_default().push(pod);
            return;
        };
        node.requested.add(&pod.requests);
        node.scored_requested.add(&pod.scored_requests);
        node.pods_with_terms += usize::from(!pod.terms.is_empty());
        node.pods.push(pod);
    }

    pub fn remove_pod(&mut self, node: &str, uid: &str) {
        if let Some(info) = self.nodes.get_mut(node) {
            if let Some(position) = info.pods.iter().position(|pod| pod.uid == uid) {
                let pod = info.pods.swap_remove(position);
                info.pods_with_terms -= usize::from(!pod.terms.is_empty());
                info.requested.subtract(&pod.requests);
                info.scored_requested.subtract(&pod.scored_requests);
            }
        } else if let Some(pods) = self.waiting.get_mut(node) {
            pods.retain(|pod| pod.uid != uid);
            if pods.is_empty() {
                self.waiting.remove(node);
            }
        }
    }
}

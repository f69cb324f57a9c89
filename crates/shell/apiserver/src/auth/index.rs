//! The RBAC and node indexes, brought up to date by what changed in the cache since the last question.
//!
//! Snapshots of the cache share structure, so finding out that nothing changed is a pointer comparison, and finding
//! out what did costs as much as there are changes. Nothing runs in the background and nothing can lag behind the cache.

use std::sync::{Arc, Mutex, PoisonError};

use access::ingress_graph::Source;
use access::{NodeGraph, Object as RbacObject, Rbac, RbacKind};
use imbl::ordmap::DiffItem;
use meta::GroupResource;
use serde_json::Value;

use crate::cache::{Object, Objects, ResourceCache, split_key};
use crate::engine::Engine;

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
const NETWORKING_GROUP: &str = "networking.k8s.io";
const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

#[derive(Default)]
pub struct Indexes {
    rbac: Mutex<RbacIndex>,
    nodes: Mutex<NodeIndex>,
}

/// What an index knows of one resource, and where to look for more.
#[derive(Default)]
struct Seen {
    /// Looked up once: a resource keeps its cache for as long as the server runs.
    cache: Option<Arc<ResourceCache>>,
    objects: Objects,
}

#[derive(Default)]
struct RbacIndex {
    seen: [Seen; 4],
    rbac: Rbac,
}

#[derive(Default)]
struct NodeIndex {
    seen: [Seen; 9],
    graph: NodeGraph,
}

impl Indexes {
    /// Asks the RBAC index as of now.
    pub fn rbac<T>(&self, engine: &Engine, ask: impl FnOnce(&Rbac) -> T) -> T {
        const KINDS: [(&str, RbacKind); 4] = [
            ("roles", RbacKind::Role),
            ("clusterroles", RbacKind::ClusterRole),
            ("rolebindings", RbacKind::RoleBinding),
            ("clusterrolebindings", RbacKind::ClusterRoleBinding),
        ];
        let mut index = self.rbac.lock().unwrap_or_else(PoisonError::into_inner);
        let RbacIndex { seen, rbac } = &mut *index;
        for ((plural, kind), seen) in KINDS.into_iter().zip(seen) {
            advance(engine, RBAC_GROUP, plural, seen, |namespace, name, object| {
                let parsed = object.and_then(|object| match RbacObject::from_value(kind, object) {
                    Ok(parsed) => Some(parsed),
                    Err(error) => {
                        tracing::warn!(%error, plural, namespace, name, "an RBAC object is unreadable and grants nothing");
                        None
                    }
                });
                rbac.apply(kind, namespace, name, parsed);
            });
        }
        ask(rbac)
    }

    /// Asks the index of what nodes need as of now.
    pub fn nodes<T>(&self, engine: &Engine, ask: impl FnOnce(&NodeGraph) -> T) -> T {
        let mut index = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let NodeIndex { seen, graph } = &mut *index;
        let [pods, volumes, attachments, slices, ingresses, classes, gateways, gateway_classes, grants] = seen;
        advance(engine, "", "pods", pods, |namespace, name, pod| graph.apply_pod(namespace, name, pod));
        advance(engine, "", "persistentvolumes", volumes, |_, name, volume| graph.apply_volume(name, volume));
        advance(engine, "storage.k8s.io", "volumeattachments", attachments, |_, name, attachment| {
            graph.apply_attachment(name, attachment);
        });
        advance(engine, "resource.k8s.io", "resourceslices", slices, |_, name, slice| graph.apply_slice(name, slice));
        let graph_of_ingress = &mut graph.ingress;
        advance(engine, NETWORKING_GROUP, "ingresses", ingresses, |namespace, name, ingress| {
            graph_of_ingress.apply_ingress(namespace, name, ingress);
        });
        advance(engine, NETWORKING_GROUP, "ingressclasses", classes, |_, name, class| {
            graph_of_ingress.apply_class(Source::Ingress, name, class);
        });
        // Without their definitions the collections of Gateway API are empty.
        advance(engine, GATEWAY_GROUP, "gateways", gateways, |namespace, name, gateway| {
            graph_of_ingress.apply_gateway(namespace, name, gateway);
        });
        advance(engine, GATEWAY_GROUP, "gatewayclasses", gateway_classes, |_, name, class| {
            graph_of_ingress.apply_class(Source::Gateway, name, class);
        });
        advance(engine, GATEWAY_GROUP, "referencegrants", grants, |namespace, name, grant| {
            graph_of_ingress.apply_grant(namespace, name, grant);
        });
        ask(graph)
    }
}

/// Hands every object that changed since `seen` to `apply`, with its namespace and name.
fn advance(
    engine: &Engine,
    group: &'static str,
    plural: &'static str,
    seen: &mut Seen,
    mut apply: impl FnMut(&str, &str, Option<&Value>),
) {
    let find = || engine.cache.resource(&GroupResource::new(group, plural));
    let now = seen.cache.get_or_insert_with(find).snapshot(engine.cache.reached()).objects;
    if now.ptr_eq(&seen.objects) {
        return;
    }
    for change in seen.objects.diff(&now) {
        let (key, object): (_, Option<&Object>) = match change {
            DiffItem::Add(key, object) | DiffItem::Update { new: (key, object), .. } => (key, Some(object)),
            DiffItem::Remove(key, _) => (key, None),
        };
        let (namespace, name) = split_key(key);
        let value = object.and_then(|object| object.value().ok());
        apply(namespace, name, value.as_ref());
    }
    seen.objects = now;
}

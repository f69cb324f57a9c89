//! The node authorizer: a kubelet may touch what its own pods need, its own Node and Lease, and the status of its pods.

use std::sync::LazyLock;

use crate::attributes::{Attributes, Decision, User};
use crate::defaults;
use crate::node_graph::{NodeGraph, Target};
use crate::rule::Rule;

/// The prefix of kubelets' user names; the node's name follows.
pub const USER_PREFIX: &str = "system:node:";
/// The group that kubelets are in.
pub const GROUP: &str = "system:nodes";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node that a user is, where it is one.
pub fn node_name(user: &User) -> Option<&str> {
    user.name.strip_prefix(USER_PREFIX).filter(|_| user.in_group(GROUP))
}

/// What every node may do besides: the rules of the default role `system:node`.
static NODE_RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let (roles, _) = defaults::all();
    roles.into_iter().find(|role| role.name == "system:node").map(|role| role.rules).unwrap_or_default()
});

fn allow() -> Decision {
    Decision::Allow { reason: String::new() }
}

fn no(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion { reason: reason.into() }
}

/// Decides for kubelets; has no opinion about anybody else.
pub fn authorize(graph: &NodeGraph, asked: &Attributes) -> Decision {
    let Some(node) = node_name(&asked.user) else { return no("") };
    if node.is_empty() {
        return no(format!("unknown node for user {:?}", asked.user.name));
    }
    let request = Request { graph, node, asked };
    match (asked.group.as_str(), asked.resource.as_str()) {
        ("", "secrets") => request.read_namespaced(Target::Secret),
        ("", "configmaps") => request.read_namespaced(Target::ConfigMap),
        ("", "persistentvolumeclaims") if asked.subresource == "status" => request.update_status(),
        ("", "persistentvolumeclaims") => request.get(Target::PersistentVolumeClaim),
        ("", "persistentvolumes") => request.get(Target::PersistentVolume),
        ("resource.k8s.io", "resourceclaims") => request.get(Target::ResourceClaim),
        ("resource.k8s.io", "resourceslices") => request.resource_slice(),
        ("storage.k8s.io", "volumeattachments") => request.get(Target::VolumeAttachment),
        ("storage.k8s.io", "csinodes") => request.csi_node(),
        ("coordination.k8s.io", "leases") => request.lease(),
        ("", "serviceaccounts") => request.service_account(),
        ("", "nodes") => request.node(),
        ("", "pods") => request.pod(),
        // Requests for pod certificates are off in the default feature set; so is their authorization.
        ("certificates.k8s.io", "podcertificaterequests") => no(""),
        _ if NODE_RULES.iter().any(|rule| rule.allows(asked)) => allow(),
        _ => no(""),
    }
}

struct Request<'a> {
    graph: &'a NodeGraph,
    node: &'a str,
    asked: &'a Attributes,
}

impl Request<'_> {
    fn verb(&self) -> &str {
        &self.asked.verb
    }

    fn related(&self, target: Target) -> Decision {
        if self.asked.name.is_empty() {
            return no("No Object name found");
        }
        if self.graph.relates(self.node, target, &self.asked.namespace, &self.asked.name) {
            return allow();
        }
        no(format!("no relationship found between node '{}' and this object", self.node))
    }

    fn get(&self, target: Target) -> Decision {
        if self.verb() != "get" {
            return no("can only get individual resources of this type");
        }
        if !self.asked.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.related(target)
    }

    /// Lists and watches are of one object: they carry a `metadata.name` selector, which becomes the request's name.
    fn read_namespaced(&self, target: Target) -> Decision {
        if !matches!(self.verb(), "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !self.asked.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if self.asked.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(target)
    }

    fn update_status(&self) -> Decision {
        if !matches!(self.verb(), "update" | "patch") {
            return no("can only get/update/patch this type");
        }
        self.related(Target::PersistentVolumeClaim)
    }

    fn service_account(&self) -> Decision {
        if self.verb() == "get" && self.asked.subresource.is_empty() {
            return self.read_namespaced(Target::ServiceAccount);
        }
        if self.verb() != "create" || self.asked.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if self.asked.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related(Target::ServiceAccount)
    }

    fn lease(&self) -> Decision {
        if !matches!(self.verb(), "get" | "create" | "update" | "patch" | "delete") {
            return no("can only get, create, update, patch, or delete a node lease");
        }
        if self.asked.namespace != LEASE_NAMESPACE {
            return no(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
        }
        if self.verb() != "create" && self.asked.name != self.node {
            return no("can only access node lease with the same name as the requesting node");
        }
        allow()
    }

    fn csi_node(&self) -> Decision {
        if !matches!(self.verb(), "get" | "create" | "update" | "patch" | "delete") {
            return no("can only get, create, update, patch, or delete a CSINode");
        }
        if !self.asked.subresource.is_empty() {
            return no("cannot authorize CSINode subresources");
        }
        if self.verb() != "create" && self.asked.name != self.node {
            return no("can only access CSINode with the same name as the requesting node");
        }
        allow()
    }

    fn resource_slice(&self) -> Decision {
        if !self.asked.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match self.verb() {
            "create" => allow(),
            "get" | "update" | "patch" | "delete" => self.related(Target::ResourceSlice),
            "watch" | "list" | "deletecollection" if self.asked.selects("spec.nodeName", self.node) => allow(),
            "watch" | "list" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, \
                 patch, delete, deletecollection"),
        }
    }

    fn node(&self) -> Decision {
        match (self.asked.subresource.as_str(), self.verb()) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => allow(),
            ("", "get" | "list" | "watch") => match self.asked.name.as_str() {
                name if name == self.node => allow(),
                "" => no(format!("node '{}' cannot read all nodes, only its own Node object", self.node)),
                name => no(format!("node '{}' cannot read '{name}', only its own Node object", self.node)),
            },
            _ => no(""),
        }
    }

    fn pod(&self) -> Decision {
        match (self.asked.subresource.as_str(), self.verb()) {
            ("", "get") => self.get(Target::Pod),
            ("", "list" | "watch") if self.asked.selects("spec.nodeName", self.node) => allow(),
            ("", "list" | "watch") if !self.asked.name.is_empty() => self.related(Target::Pod),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => allow(),
            _ => no(""),
        }
    }
}

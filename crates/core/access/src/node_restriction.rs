//! The node restriction: what a kubelet's writes may contain, beyond which objects it may write.

use std::collections::BTreeSet;

use serde_json::Value;

/// What a kubelet asks to write. Objects are as the API has them; `old` is the object as it is.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// `create`, `update` or `delete`.
    pub operation: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub new: Option<&'a Value>,
    pub old: Option<&'a Value>,
}

/// What the decision looks up.
pub trait Objects {
    fn pod(&self, namespace: &str, name: &str) -> Option<Value>;
    fn node(&self, name: &str) -> Option<Value>;
}

/// Why a write is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 403; the sentence after `... is forbidden: `.
    Forbidden(String),
    /// The object that the decision needs is not there: 404 of this resource and name.
    NotFound { resource: &'static str, name: String },
}

type Verdict = Result<(), Refusal>;

fn refuse(why: impl Into<String>) -> Verdict {
    Err(Refusal::Forbidden(why.into()))
}

/// Whether node `node` may do this write, which authorization already allowed.
pub fn admit(node: &str, write: &Write<'_>, objects: &dyn Objects) -> Verdict {
    if node.is_empty() {
        return refuse("could not determine node from user \"system:node:\"");
    }
    match (write.group, write.resource, write.subresource) {
        ("", "pods", "") => admit_pod(node, write, objects),
        ("", "pods", "status") => admit_pod_status(node, write),
        ("", "pods", "eviction") => {
            let pod = find_pod(objects, write.namespace, write.name)?;
            if runs_on(&pod, node) {
                return Ok(());
            }
            refuse(format!("node {node} can only evict pods with spec.nodeName set to itself"))
        }
        ("", "pods", other) => {
            refuse(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
        }
        ("", "nodes", _) => admit_node(node, write),
        ("", "persistentvolumeclaims", "status") => admit_claim_status(node, write),
        ("", "persistentvolumeclaims", _) => refuse("may only update PVC status"),
        ("", "serviceaccounts", "token") if write.operation == "create" => admit_token(node, write, objects),
        ("coordination.k8s.io", "leases", _) => admit_lease(node, write),
        ("storage.k8s.io", "csinodes", _) => admit_csi_node(node, write),
        _ => Ok(()),
    }
}

fn runs_on(pod: &Value, node: &str) -> bool {
    pod["spec"]["nodeName"] == node
}

fn find_pod(objects: &dyn Objects, namespace: &str, name: &str) -> Result<Value, Refusal> {
    objects.pod(namespace, name).ok_or_else(|| Refusal::NotFound { resource: "pods", name: name.to_owned() })
}

fn admit_pod(node: &str, write: &Write<'_>, objects: &dyn Objects) -> Verdict {
    match write.operation {
        "create" => admit_mirror_pod(node, write.new.unwrap_or(&Value::Null), objects),
        "delete" => {
            let pod = match write.old {
                Some(pod) => pod.clone(),
                None => find_pod(objects, write.namespace, write.name)?,
            };
            if runs_on(&pod, node) {
                return Ok(());
            }
            refuse(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        other => {
            let operation = other.to_uppercase();
            refuse(format!("unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods"))
        }
    }
}

/// A mirror pod shows in the API what a node runs from its own disk; it may lead to no API object.
fn admit_mirror_pod(node: &str, pod: &Value, objects: &dyn Objects) -> Verdict {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    if !pod["metadata"]["annotations"][MIRROR].is_string() {
        return refuse(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if !runs_on(pod, node) {
        return refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owner = match pod["metadata"]["ownerReferences"].as_array().map(Vec::as_slice) {
        Some([owner]) => owner,
        None | Some([]) => {
            return refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
        }
        Some(_) => {
            return refuse(format!("node {node:?} can only create pods with a single owner reference set to itself"));
        }
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return refuse(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let existing = objects.node(node).ok_or_else(|| Refusal::NotFound { resource: "nodes", name: node.to_owned() })?;
    if owner["uid"] != existing["metadata"]["uid"] {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let (expected, got) = (text(&owner["uid"]), text(&existing["metadata"]["uid"]));
        return refuse(format!("node {node} UID mismatch: expected {expected} got {got}"));
    }
    match api_reference(pod) {
        Some(what) => refuse(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// The first kind of API object that a pod's spec refers to.
fn api_reference(pod: &Value) -> Option<&'static str> {
    let spec = &pod["spec"];
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    let filled = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    if filled(&spec["resourceClaims"]) {
        return Some("resourceclaims");
    }
    let mut bare = pod.clone();
    // Without the mark of a mirror pod the graph's walk sees everything.
    bare["metadata"]["annotations"] = Value::Null;
    bare["spec"]["nodeName"] = Value::String("n".to_owned());
    let mut graph = crate::NodeGraph::default();
    graph.apply_pod("", "", Some(&bare));
    use crate::node_graph::Target;
    let kinds = [
        (Target::Secret, "secrets"),
        (Target::ConfigMap, "configmaps"),
        (Target::PersistentVolumeClaim, "persistentvolumeclaims"),
    ];
    let found = kinds.into_iter().find(|(kind, _)| graph.has_any("n", *kind)).map(|(_, name)| name);
    let projected = |volume: &Value| {
        let sources = volume["projected"]["sources"].as_array().into_iter().flatten().collect::<Vec<_>>();
        let of = |key: &str| sources.iter().any(|source| source[key].is_object());
        if of("serviceAccountToken") {
            Some("serviceaccounts")
        } else {
            of("clusterTrustBundle").then_some("clustertrustbundles")
        }
    };
    found.or_else(|| spec["volumes"].as_array().into_iter().flatten().find_map(projected))
}

fn admit_pod_status(node: &str, write: &Write<'_>) -> Verdict {
    let (Some(new), Some(old)) = (write.new, write.old) else {
        return refuse(format!("unexpected operation {:?}", write.operation.to_uppercase()));
    };
    if !runs_on(old, node) {
        return refuse(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if !same(&new["metadata"]["labels"], &old["metadata"]["labels"]) {
        return refuse(format!("node {node:?} cannot update labels through pod status"));
    }
    if !same(&new["status"]["resourceClaimStatuses"], &old["status"]["resourceClaimStatuses"]) {
        return refuse(format!("node {node:?} cannot update resource claim statues"));
    }
    if !same(&new["status"]["extendedResourceClaimStatus"], &old["status"]["extendedResourceClaimStatus"]) {
        return refuse(format!("node {node:?} cannot update extended resource claim status"));
    }
    Ok(())
}

/// Equal, where nothing, an empty list and an empty map are the same.
fn same(a: &Value, b: &Value) -> bool {
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    a == b || (empty(a) && empty(b))
}

fn admit_node(node: &str, write: &Write<'_>) -> Verdict {
    if write.name != node {
        return refuse(format!("node {node:?} is not allowed to modify node {:?}", write.name));
    }
    let Some(new) = write.new else { return Ok(()) };
    let nothing = Value::Null;
    let old = write.old.unwrap_or(&nothing);
    if write.operation == "update" {
        if !same(&new["spec"]["taints"], &old["spec"]["taints"]) {
            return refuse(format!("node {node:?} is not allowed to modify taints"));
        }
        if !same(&new["metadata"]["ownerReferences"], &old["metadata"]["ownerReferences"]) {
            return refuse(format!("node {node:?} is not allowed to modify ownerReferences"));
        }
    }
    let source = &new["spec"]["configSource"];
    if !source.is_null() && source != &old["spec"]["configSource"] {
        return refuse(if write.operation == "create" {
            format!("node {node:?} is not allowed to create pods with a non-nil configSource")
        } else {
            format!("node {node:?} is not allowed to update configSource to a new non-nil configSource")
        });
    }
    let labels = forbidden_labels(&new["metadata"]["labels"], &old["metadata"]["labels"]);
    if labels.is_empty() {
        return Ok(());
    }
    let list = labels.into_iter().collect::<Vec<_>>().join(", ");
    refuse(if write.operation == "create" {
        format!("node {node:?} is not allowed to set the following labels: {list}")
    } else {
        format!("is not allowed to modify labels: {list}")
    })
}

/// Changed labels of Kubernetes' own domains that are not a kubelet's to set, or that exist to keep nodes apart.
fn forbidden_labels(new: &Value, old: &Value) -> BTreeSet<String> {
    let keys = |labels: &Value| labels.as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect::<Vec<_>>();
    let changed = keys(new).into_iter().chain(keys(old)).filter(|key| new[key.as_str()] != old[key.as_str()]);
    changed.filter(|key| is_forbidden_label(key)).collect()
}

fn is_forbidden_label(key: &str) -> bool {
    const KUBELET_LABELS: [&str; 11] = [
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    ];
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if within("node-restriction.kubernetes.io") {
        return true;
    }
    let kubelets = KUBELET_LABELS.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    (within("kubernetes.io") || within("k8s.io")) && !kubelets
}

fn admit_claim_status(node: &str, write: &Write<'_>) -> Verdict {
    let (Some(new), Some(old)) = (write.new, write.old) else {
        return refuse(format!("unexpected operation {:?}", write.operation.to_uppercase()));
    };
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        let parts = [
            ("metadata", &["resourceVersion", "managedFields"][..]),
            ("status", &["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"][..]),
        ];
        for (part, fields) in parts {
            if let Some(part) = claim.get_mut(part).and_then(Value::as_object_mut) {
                fields.iter().for_each(|field| drop(part.remove(*field)));
            }
        }
        claim
    };
    if rest(new) == rest(old) {
        return Ok(());
    }
    refuse(format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions"))
}

fn admit_token(node: &str, write: &Write<'_>, objects: &dyn Objects) -> Verdict {
    let spec = &write.new.unwrap_or(&Value::Null)["spec"];
    let bound = &spec["boundObjectRef"];
    let text = |field: &str| bound[field].as_str().unwrap_or_default();
    if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    let uid = text("uid");
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pod = find_pod(objects, write.namespace, text("name"))?;
    if pod["metadata"]["uid"] != uid {
        return refuse(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        ));
    }
    if !runs_on(&pod, node) {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    let audiences: Vec<&str> = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match audiences.as_slice() {
        [] => Ok(()),
        [audience] if pod_uses_audience(&pod, audience) => Ok(()),
        [audience] => refuse(format!("audience {audience:?} not found in pod spec volume")),
        _ => refuse("node may only request 0 or 1 audiences"),
    }
}

/// A node may ask for tokens for the audiences that the pod's own volumes name.
fn pod_uses_audience(pod: &Value, audience: &str) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut sources = volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    sources.any(|source| source["serviceAccountToken"]["audience"] == audience)
}

fn admit_lease(node: &str, write: &Write<'_>) -> Verdict {
    let name = match write.new.filter(|_| write.operation == "create") {
        Some(new) => new["metadata"]["name"].as_str().unwrap_or_default(),
        None => write.name,
    };
    if write.namespace != "kube-node-lease" {
        return refuse("can only access leases in the \"kube-node-lease\" system namespace");
    }
    if name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn admit_csi_node(node: &str, write: &Write<'_>) -> Verdict {
    let name = match write.new.filter(|_| write.operation == "create") {
        Some(new) => new["metadata"]["name"].as_str().unwrap_or_default(),
        None => write.name,
    };
    if name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

//! What a kubelet may read and write: a small cluster, then one request per line.
#![allow(clippy::unwrap_used)]

use access::ingress_graph::{self, Source};
use access::node_restriction::{self, Objects, Refusal, Write};
use access::{Attributes, Decision, NodeGraph, User, node};
use serde_json::{Value, json};

fn kubelet(name: &str) -> User {
    User { name: format!("system:node:{name}"), groups: vec!["system:nodes".to_owned()], ..User::default() }
}

fn pod(name: &str, on: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "ns", "uid": format!("uid-{name}") },
        "spec": {
            "nodeName": on, "serviceAccountName": "runner", "imagePullSecrets": [{ "name": "pull" }],
            "containers": [{ "envFrom": [{ "configMapRef": { "name": "env" } }],
                "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "key", "key": "k" } } }] }],
            "volumes": [
                { "name": "v", "persistentVolumeClaim": { "claimName": "data" } },
                { "name": "p", "projected": { "sources": [{ "configMap": { "name": "kube-root-ca.crt" } },
                    { "serviceAccountToken": { "audience": "vault", "path": "t" } }] } },
            ],
        },
    })
}

fn graph() -> NodeGraph {
    let mut graph = NodeGraph::default();
    graph.apply_pod("ns", "one", Some(&pod("one", "a")));
    let csi = json!({ "driver": "d", "nodeStageSecretRef": { "namespace": "vault", "name": "stage" } });
    let volume = json!({ "spec": { "claimRef": { "namespace": "ns", "name": "data" }, "csi": csi } });
    graph.apply_volume("pv", Some(&volume));
    graph
}

/// `NODE VERB RESOURCE[.GROUP][/SUB][:NAME] [NAMESPACE]`
fn allowed(graph: &NodeGraph, text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (what, name) = words[2].split_once(':').unwrap_or((words[2], ""));
    let (what, sub) = what.split_once('/').unwrap_or((what, ""));
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    let asked = Attributes {
        user: kubelet(words[0]),
        verb: words[1].to_owned(),
        group: group.to_owned(),
        resource: resource.to_owned(),
        subresource: sub.to_owned(),
        name: name.to_owned(),
        namespace: words.get(3).unwrap_or(&"").to_string(),
        ..Attributes::default()
    };
    matches!(node::authorize(graph, &asked), Decision::Allow { .. })
}

#[test]
fn a_node_touches_only_what_its_pods_need() {
    let graph = graph();
    for text in [
        "a get secrets:key ns",
        "a get secrets:pull ns",
        "a watch configmaps:env ns",
        "a get configmaps:kube-root-ca.crt ns",
        "a get persistentvolumeclaims:data ns",
        "a get persistentvolumes:pv",
        "a get secrets:stage vault",
        "a create serviceaccounts/token:runner ns",
        "a get nodes:a",
        "a create nodes",
        "a patch nodes/status:a",
        "a update leases.coordination.k8s.io:a kube-node-lease",
        "a get pods:one ns",
        "a patch pods/status:one ns",
        "a create events default",
        "a list services",
        "a create certificatesigningrequests.certificates.k8s.io",
        "a create tokenreviews.authentication.k8s.io",
    ] {
        assert!(allowed(&graph, text), "{text} must be allowed");
    }
    for text in [
        "b get secrets:key ns",
        "a get secrets:other ns",
        "a list secrets ns",
        "a get secrets:key other",
        "a update secrets:key ns",
        "b get persistentvolumes:pv",
        "b get secrets:stage vault",
        "b create serviceaccounts/token:runner ns",
        "a create serviceaccounts ns",
        "a get nodes:b",
        "a list nodes",
        "a delete nodes:a",
        "a update leases.coordination.k8s.io:b kube-node-lease",
        "a update leases.coordination.k8s.io:a ns",
        "b get pods:one ns",
        "a list pods",
        "a patch pods:one ns",
    ] {
        assert!(!allowed(&graph, text), "{text} must be denied");
    }
}

#[test]
fn a_gone_pod_takes_its_rights_with_it() {
    let mut graph = graph();
    graph.apply_pod("ns", "two", Some(&pod("two", "a")));
    graph.apply_pod("ns", "one", None);
    assert!(allowed(&graph, "a get secrets:key ns"));
    graph.apply_pod("ns", "two", Some(&pod("two", "")));
    assert!(!allowed(&graph, "a get secrets:key ns"));
    assert!(!allowed(&graph, "a get secrets:stage vault"));
}

#[test]
fn own_pods_are_listed_by_selector() {
    let mut asked = Attributes { user: kubelet("a"), verb: "list".to_owned(), ..Attributes::default() };
    asked.resource = "pods".to_owned();
    asked.field_selector = vec![("spec.nodeName".to_owned(), "a".to_owned())];
    assert!(matches!(node::authorize(&graph(), &asked), Decision::Allow { .. }));
    asked.user = kubelet("b");
    assert!(matches!(node::authorize(&graph(), &asked), Decision::NoOpinion { .. }));
    asked.user.groups.clear();
    assert_eq!(node::authorize(&graph(), &asked), Decision::NoOpinion { reason: String::new() });
}

struct Known;

impl Objects for Known {
    fn pod(&self, namespace: &str, name: &str) -> Option<Value> {
        let on = if name == "one" { "a" } else { "b" };
        (namespace == "ns" && matches!(name, "one" | "two")).then(|| pod(name, on))
    }

    fn node(&self, name: &str) -> Option<Value> {
        Some(json!({ "metadata": { "name": name, "uid": "node-uid" } }))
    }
}

fn admit(operation: &str, resource: &str, name: &str, new: Option<Value>, old: Option<Value>) -> Result<(), String> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (new, old) = (new.as_ref(), old.as_ref());
    let write = Write { operation, group: "", resource, subresource, namespace: "ns", name, new, old };
    node_restriction::admit("a", &write, &Known).map_err(|refusal| match refusal {
        Refusal::Forbidden(why) => why,
        Refusal::NotFound { resource, name } => format!("{resource} {name} not found"),
    })
}

#[test]
fn writes_are_limited_to_the_nodes_own() {
    let mirror = |change: fn(&mut Value)| {
        let mut pod = json!({
            "metadata": { "name": "m", "annotations": { "kubernetes.io/config.mirror": "h" }, "ownerReferences": [
                { "apiVersion": "v1", "kind": "Node", "name": "a", "uid": "node-uid", "controller": true }] },
            "spec": { "nodeName": "a", "containers": [{ "name": "c" }] },
        });
        change(&mut pod);
        admit("create", "pods", "", Some(pod), None)
    };
    assert_eq!(mirror(|_| ()), Ok(()));
    let refused = |result: Result<(), String>, text: &str| {
        let error = result.unwrap_err();
        assert!(error.contains(text), "{error}");
    };
    refused(mirror(|p| p["metadata"]["annotations"] = json!({})), "can only create mirror pods");
    refused(mirror(|p| p["spec"]["nodeName"] = json!("b")), "with spec.nodeName set to itself");
    refused(mirror(|p| p["metadata"]["ownerReferences"] = json!([])), "with an owner reference set to itself");
    refused(mirror(|p| p["metadata"]["ownerReferences"][0]["uid"] = json!("x")), "UID mismatch");
    refused(mirror(|p| p["spec"]["volumes"] = json!([{ "secret": { "secretName": "s" } }])), "that reference secrets");
    refused(admit("delete", "pods", "two", None, None), "can only delete pods");
    assert_eq!(admit("delete", "pods", "one", None, None), Ok(()));
    refused(admit("delete", "pods", "gone", None, None), "pods gone not found");
    assert_eq!(admit("update", "pods/status", "one", Some(pod("one", "a")), Some(pod("one", "a"))), Ok(()));
    refused(admit("update", "pods/status", "two", Some(pod("two", "b")), Some(pod("two", "b"))), "update pod status");
    let node = |labels: Value| json!({ "metadata": { "name": "a", "labels": labels }, "spec": {} });
    let fine = node(json!({ "kubernetes.io/hostname": "a", "mine": "1", "node.kubernetes.io/x": "1" }));
    assert_eq!(admit("create", "nodes", "a", Some(fine), None), Ok(()));
    let bad = node(json!({ "node-role.kubernetes.io/control-plane": "", "node-restriction.kubernetes.io/x": "" }));
    refused(
        admit("create", "nodes", "a", Some(bad), None),
        "set the following labels: node-restriction.kubernetes.io/x, node-role.kubernetes.io/control-plane",
    );
    refused(admit("update", "nodes", "b", None, None), "node \"a\" is not allowed to modify node \"b\"");
    let mut tainted = node(json!({}));
    tainted["spec"]["taints"] = json!([{ "key": "k", "effect": "NoSchedule" }]);
    refused(admit("update", "nodes", "a", Some(tainted), Some(node(json!({})))), "modify taints");
}

#[test]
fn tokens_are_for_pods_that_run_here() {
    let token = |pod: &str, uid: &str, audience: &str| {
        let bound = json!({ "apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid });
        let audiences = if audience.is_empty() { json!([]) } else { json!([audience]) };
        let request = json!({ "spec": { "boundObjectRef": bound, "audiences": audiences } });
        admit("create", "serviceaccounts/token", "runner", Some(request), None)
    };
    assert_eq!(token("one", "uid-one", ""), Ok(()));
    assert_eq!(token("one", "uid-one", "vault"), Ok(()));
    assert!(token("one", "uid-one", "bank").unwrap_err().contains("not found in pod spec"));
    assert!(token("one", "other", "").unwrap_err().contains("does not match the UID in record"));
    assert!(token("two", "uid-two", "").unwrap_err().contains("scheduled on a different node"));
    assert!(token("one", "", "").unwrap_err().contains("without a uid"));
}

#[test]
fn nodes_read_the_certificates_that_their_ingress_shows() {
    let mut graph = graph();
    let named = |class: &str| json!({"spec": {"ingressClassName": class, "tls": [{"secretName": "cert"}]}});
    let asked = "b watch secrets:cert web";
    graph.ingress.apply_ingress("web", "site", Some(&named("tug")));
    assert!(!allowed(&graph, asked), "nobody knows the class");
    graph.ingress.apply_class(
        Source::Ingress,
        "tug",
        Some(&json!({"spec": {"controller": ingress_graph::CONTROLLER}})),
    );
    graph.ingress.apply_class(Source::Ingress, "other", Some(&json!({"spec": {"controller": "example.com/other"}})));
    assert!(allowed(&graph, asked));
    assert!(!allowed(&graph, "b watch secrets:key web"));
    assert!(!allowed(&graph, "b list secrets web"));
    assert!(!allowed(&graph, "b update secrets:cert web"));
    graph.ingress.apply_ingress("web", "site", Some(&named("other")));
    assert!(!allowed(&graph, asked));
    graph.ingress.apply_ingress("web", "site", Some(&named("tug")));
    graph.ingress.apply_ingress("web", "site", None);
    assert!(!allowed(&graph, asked));

    let gateway = json!({"spec": {"gatewayClassName": "tug", "listeners": [
        {"tls": {"certificateRefs": [{"name": "cert"}, {"name": "shared", "namespace": "vault"}]}}]}});
    graph.ingress.apply_gateway("web", "front", Some(&gateway));
    assert!(!allowed(&graph, asked), "a GatewayClass is no IngressClass");
    graph.ingress.apply_class(
        Source::Gateway,
        "tug",
        Some(&json!({"spec": {"controllerName": ingress_graph::CONTROLLER}})),
    );
    assert!(allowed(&graph, asked));
    assert!(!allowed(&graph, "b get secrets:shared vault"));
    let grant = json!({"spec": {
        "from": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "web"}],
        "to": [{"group": "", "kind": "Secret", "name": "shared"}]}});
    graph.ingress.apply_grant("vault", "web", Some(&grant));
    assert!(allowed(&graph, "b get secrets:shared vault"));
    assert!(!allowed(&graph, "b get secrets:key vault"));
    graph.ingress.apply_grant("vault", "web", None);
    assert!(!allowed(&graph, "b get secrets:shared vault"));
}

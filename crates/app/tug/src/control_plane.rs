//! The control plane's components over the in-memory client, each as the user that upstream gives it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use access::User;
use anyhow::Result;
use apiserver::ApiServer;
use controllers::trust::TrustConfig;
use pki::Authority;
use pki::cluster::ClusterPki;
use tokio_util::sync::CancellationToken;

use serde_json::{Value, json};

use crate::cluster::Cluster;

const CONTROLLERS_USER: &str = "system:kube-controller-manager";
const INGRESS_USER: &str = "tug:ingress-controller";
/// Controllers as upstream names their roles.
const CONTROLLERS: [&str; 26] = [
    "certificate-controller",
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemon-set-controller",
    "deployment-controller",
    "endpoint-controller",
    "endpointslice-controller",
    "endpointslicemirroring-controller",
    "ephemeral-volume-controller",
    "expand-controller",
    "generic-garbage-collector",
    "horizontal-pod-autoscaler",
    "job-controller",
    "namespace-controller",
    "node-controller",
    "persistent-volume-binder",
    "pod-garbage-collector",
    "pv-protection-controller",
    "pvc-protection-controller",
    "replicaset-controller",
    "replication-controller",
    "root-ca-cert-publisher",
    "service-account-controller",
    "service-cidrs-controller",
    "service-controller",
    "statefulset-controller",
];

/// Starts controllers and scheduler; they run until `stop`.
///
/// # Errors
/// A component's configuration is unusable.
pub fn start(
    cluster: &Cluster,
    pki: &ClusterPki,
    address: Ipv4Addr,
    server: &ApiServer,
    stop: &CancellationToken,
) -> Result<()> {
    let now = jiff::Timestamp::now().as_second();
    let controllers = controllers::Config {
        root_ca_pem: pki.ca.certificate_pem().to_owned(),
        cluster_cidrs: vec![cluster.pod_cidr()],
        // Beside the API server and the kubelet, the ingress of the nodes.
        node_ports_reserved: vec![cluster.port, cluster.kubelet_port(), 80, 443],
        ..controllers::Config::default()
    };
    let client = server.client_as(component(CONTROLLERS_USER));
    tokio::spawn(controllers::run(controllers, client, stop.clone()));
    let client = server.client_as(administrator());
    tokio::spawn(network::bootstrap(client, cluster.dns_address()));
    let client = server.client_as(component(INGRESS_USER));
    tokio::spawn(ingress::control(client, stop.clone()));
    let trust = TrustConfig {
        ca: Arc::new(Authority::load_or_create(&cluster.dir.join("pki"), "ca", "kubernetes", now)?),
        server: format!("https://{address}:{}", cluster.port),
    };
    let hub = client::Hub::new(server.client_as(administrator()), stop.clone());
    tokio::spawn(controllers::trust::run(trust, hub, stop.clone()));
    let client = server.client_as(component("system:kube-scheduler"));
    tokio::spawn(scheduler::run(scheduler::SchedulerConfig::default(), client, stop.clone()));
    Ok(())
}

fn component(name: &str) -> User {
    User { name: name.to_owned(), groups: vec!["system:authenticated".to_owned()], ..User::default() }
}

/// The controllers run as one user, which has the roles that upstream gives to each of them, and no more.
pub fn bootstrap_objects() -> Vec<Value> {
    let api = "rbac.authorization.k8s.io";
    let binding = |controller: &&str| {
        json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRoleBinding",
               "metadata": {"name": format!("tug:controller:{controller}")},
               "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": format!("system:controller:{controller}")},
               "subjects": [{"apiGroup": api, "kind": "User", "name": CONTROLLERS_USER}]})
    };
    // Every node programs services and finds its peers itself, with the rights of upstream's node proxy.
    let nodes = json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "tug:node-proxier"},
                       "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "system:node-proxier"},
                       "subjects": [{"apiGroup": api, "kind": "Group", "name": "system:nodes"}]});
    // Network policies speak of all pods, whose addresses every node must therefore know.
    let policies = json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRole", "metadata": {"name": "tug:node-policies"},
                          "rules": [{"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["list", "watch"]},
                                    {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"],
                                     "verbs": ["list", "watch"]}]});
    let policed = json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "tug:node-policies"},
                         "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "tug:node-policies"},
                         "subjects": [{"apiGroup": api, "kind": "Group", "name": "system:nodes"}]});
    // Each node answers names itself, and so reads where names outside the cluster are asked for.
    let meta = json!({"name": "tug:node-dns", "namespace": "kube-system"});
    let dns = json!({"apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": meta,
                     "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["kube-dns"],
                                "verbs": ["get", "list", "watch"]}]});
    let names = json!({"apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": meta,
                       "roleRef": {"apiGroup": api, "kind": "Role", "name": "tug:node-dns"},
                       "subjects": [{"apiGroup": api, "kind": "Group", "name": "system:nodes"}]});
    // Who may look at pods may see what they use.
    let aggregate = |role: &str| (format!("{api}/aggregate-to-{role}"), Value::from("true"));
    let labels: serde_json::Map<String, Value> = ["view", "edit", "admin"].map(aggregate).into_iter().collect();
    let metrics = json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRole",
                         "metadata": {"name": "system:aggregated-metrics-reader", "labels": labels},
                         "rules": [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"],
                                    "verbs": ["get", "list", "watch"]}]});
    let shared = CONTROLLERS.iter().map(binding).chain([nodes, policies, policed, dns, names, metrics]);
    shared.chain(ingress_objects()).chain(disk_objects()).chain(address_objects()).collect()
}

/// What the ingress may do: on nodes, where the Secrets of certificates come by the node authorizer one by one; and in
/// the control plane, where statuses are written and certificates checked.
fn ingress_objects() -> Vec<Value> {
    let api = "rbac.authorization.k8s.io";
    let rule = |groups: &[&str], resources: &[&str], verbs: &[&str]| json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
    let read = ["get", "list", "watch"];
    let routes = [
        rule(&["networking.k8s.io"], &["ingresses", "ingressclasses"], &read),
        rule(&["gateway.networking.k8s.io"], &["gatewayclasses", "gateways", "httproutes", "referencegrants"], &read),
    ];
    let control = [
        rule(&["networking.k8s.io"], &["ingressclasses"], &["create"]),
        rule(&["networking.k8s.io"], &["ingresses/status"], &["patch"]),
        rule(&["gateway.networking.k8s.io"], &["gatewayclasses"], &["create"]),
        rule(
            &["gateway.networking.k8s.io"],
            &["gatewayclasses/status", "gateways/status", "httproutes/status"],
            &["patch"],
        ),
        rule(&[""], &["nodes", "namespaces", "services", "secrets"], &read),
        rule(&["discovery.k8s.io"], &["endpointslices"], &read),
        rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]),
    ];
    let role = |name: &str, rules: Vec<Value>| json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
    let binding = |name: &str, kind: &str, subject: &str| {
        json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
               "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
               "subjects": [{"apiGroup": api, "kind": kind, "name": subject}]})
    };
    let settings = json!({"name": ingress::SETTINGS_NAME, "namespace": ingress::SETTINGS_NAMESPACE});
    let subjects = [("Group", "system:nodes"), ("User", INGRESS_USER)]
        .map(|(kind, name)| json!({"apiGroup": api, "kind": kind, "name": name}));
    vec![
        role("tug:ingress", [&routes[..], &[rule(&[""], &["namespaces"], &read)]].concat()),
        binding("tug:ingress", "Group", "system:nodes"),
        role("tug:ingress-controller", [&routes[..], &control].concat()),
        binding("tug:ingress-controller", "User", INGRESS_USER),
        json!({"apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": settings,
               "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [ingress::SETTINGS_NAME], "verbs": read}]}),
        json!({"apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": settings,
               "roleRef": {"apiGroup": api, "kind": "Role", "name": ingress::SETTINGS_NAME}, "subjects": subjects}),
    ]
}

/// The default StorageClass, and the right to ask nodes for its disks. Nodes take such requests through the API server,
/// as `nodes/proxy`.
fn disk_objects() -> [Value; 3] {
    let api = "rbac.authorization.k8s.io";
    let name = "tug:disk-provisioner";
    let rule = |groups: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [groups], "resources": resources, "verbs": verbs});
    let rules = [
        rule("", &["nodes/proxy"], &["create", "update", "delete"]),
        rule("", &["nodes"], &["get", "list", "watch"]),
        rule("", &["persistentvolumes"], &["get", "list", "watch", "create", "update", "patch", "delete"]),
        rule("", &["persistentvolumes/status", "persistentvolumeclaims/status"], &["update", "patch"]),
        rule("", &["persistentvolumeclaims"], &["get", "list", "watch", "update"]),
        rule("storage.k8s.io", &["storageclasses"], &["get", "list", "watch"]),
    ];
    let role =
        json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
    let binding = json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
                         "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
                         "subjects": [{"apiGroup": api, "kind": "User", "name": CONTROLLERS_USER}]});
    [role, binding, reconcile::volume::disk::default_class_object()]
}

/// The right to keep an object for each address of a Service, which upstream's API server does by itself.
fn address_objects() -> [Value; 2] {
    let api = "rbac.authorization.k8s.io";
    let name = "tug:service-addresses";
    let verbs = ["get", "list", "watch", "create", "delete"];
    let rules = json!([{"apiGroups": ["networking.k8s.io"], "resources": ["ipaddresses"], "verbs": verbs}]);
    let role =
        json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
    let binding = json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
                         "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
                         "subjects": [{"apiGroup": api, "kind": "User", "name": CONTROLLERS_USER}]});
    [role, binding]
}

/// For what the server itself makes at start.
fn administrator() -> User {
    User { name: "system:apiserver".to_owned(), groups: vec!["system:masters".to_owned()], ..User::default() }
}

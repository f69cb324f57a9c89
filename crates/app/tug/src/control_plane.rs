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
/// Controllers as upstream names their roles.
const CONTROLLERS: [&str; 18] = [
    "certificate-controller",
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemon-set-controller",
    "deployment-controller",
    "endpoint-controller",
    "endpointslice-controller",
    "endpointslicemirroring-controller",
    "generic-garbage-collector",
    "job-controller",
    "namespace-controller",
    "node-controller",
    "pod-garbage-collector",
    "replicaset-controller",
    "replication-controller",
    "root-ca-cert-publisher",
    "service-account-controller",
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
        ..controllers::Config::default()
    };
    let client = server.client_as(component(CONTROLLERS_USER));
    tokio::spawn(controllers::run(controllers, client, stop.clone()));
    let client = server.client_as(administrator());
    tokio::spawn(network::bootstrap(client, cluster.dns_address()));
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
    // Who may look at pods may see what they use.
    let aggregate = |role: &str| (format!("{api}/aggregate-to-{role}"), Value::from("true"));
    let labels: serde_json::Map<String, Value> = ["view", "edit", "admin"].map(aggregate).into_iter().collect();
    let metrics = json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRole",
                         "metadata": {"name": "system:aggregated-metrics-reader", "labels": labels},
                         "rules": [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"],
                                    "verbs": ["get", "list", "watch"]}]});
    CONTROLLERS.iter().map(binding).chain([nodes, policies, policed, metrics]).collect()
}

/// For what the server itself makes at start.
fn administrator() -> User {
    User { name: "system:apiserver".to_owned(), groups: vec!["system:masters".to_owned()], ..User::default() }
}

//! All controllers against a whole API server: a day in the life of a namespace, with no write beyond upstream's roles.
#![allow(clippy::unwrap_used, clippy::panic)]

mod batch;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use access::defaults;
use access::{Attributes, Decision};
use apiserver::{Authorizer, Config};
use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, ReplicationController, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{NobodyElse, TestServer, make, merge, run_pods, until};
use tokio_util::sync::CancellationToken;

const CONTROLLERS: &str = "system:kube-controller-manager";
/// The garbage collector deletes anything and patches owners of anything; its rights must not cover for the others.
const COLLECTOR: &str = "system:controller:generic-garbage-collector";

/// Allows everything, and keeps what the controllers wrote.
#[derive(Default)]
struct Recorder {
    writes: Mutex<Vec<Attributes>>,
}

#[async_trait]
impl Authorizer for Recorder {
    async fn authorize(&self, asked: &Attributes) -> Decision {
        let reads = ["get", "list", "watch"].contains(&asked.verb.as_str());
        if asked.user.name == CONTROLLERS && !reads && asked.is_resource_request() {
            self.writes.lock().unwrap().push(asked.clone());
        }
        Decision::Allow { reason: "a test".to_owned() }
    }
}

fn template(app: &str, image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": app } }, "spec": { "containers": [{ "name": "c", "image": image }] } })
}

async fn workloads(client: &Client) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "a");
    let orphan = json!({ "metadata": { "name": "orphan", "labels": { "app": "rc" } },
        "spec": template("rc", "i:1")["spec"] });
    make(&pods, orphan).await;
    let controllers: Api<ReplicationController> = Api::namespaced(client.clone(), "a");
    let rc = json!({ "metadata": { "name": "rc" },
        "spec": { "replicas": 2, "selector": { "app": "rc" }, "template": template("rc", "i:1") } });
    make(&controllers, rc).await;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "a");
    let deployment = json!({ "metadata": { "name": "web" }, "spec": { "replicas": 3, "revisionHistoryLimit": 0,
        "selector": { "matchLabels": { "app": "web" } }, "template": template("web", "i:1") } });
    make(&deployments, deployment).await;
    available(&deployments, "i:1").await;
    until("the ReplicationController counts its pods", || async {
        controllers.get("rc").await.ok()?.status?.available_replicas.filter(|count| *count == 2)
    })
    .await;
    let owner = pods.get("orphan").await.unwrap().metadata.owner_references.unwrap();
    assert_eq!((owner[0].name.as_str(), owner[0].controller), ("rc", Some(true)));
    merge(&deployments, "web", json!({ "spec": { "template": template("web", "i:2") } })).await;
    available(&deployments, "i:2").await;
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), "a");
    until("the old ReplicaSet is cleaned up", || async {
        (sets.list(&ListParams::default()).await.ok()?.items.len() == 1).then_some(())
    })
    .await;
}

async fn available(deployments: &Api<Deployment>, what: &str) {
    until(&format!("{what} rolled out"), || async {
        let deployment = deployments.get("web").await.ok()?;
        let (generation, status) = (deployment.metadata.generation, deployment.status?);
        let counts = [status.replicas, status.updated_replicas, status.available_replicas];
        (status.observed_generation == generation && counts == [Some(3); 3]).then_some(())
    })
    .await;
}

async fn sets(client: &Client) {
    let stateful: Api<StatefulSet> = Api::namespaced(client.clone(), "a");
    let claim = json!({ "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": "1Gi" } } } });
    let set = json!({ "metadata": { "name": "db" }, "spec": { "replicas": 2, "serviceName": "db",
        "persistentVolumeClaimRetentionPolicy": { "whenScaled": "Delete" },
        "selector": { "matchLabels": { "app": "db" } }, "template": template("db", "i:1"),
        "volumeClaimTemplates": [claim] } });
    make(&stateful, set).await;
    let daemons: Api<DaemonSet> = Api::namespaced(client.clone(), "a");
    let set = json!({ "metadata": { "name": "agent" }, "spec": {
        "selector": { "matchLabels": { "app": "agent" } }, "template": template("agent", "i:1") } });
    make(&daemons, set).await;
    for image in ["i:1", "i:2", "i:1"] {
        let changed =
            json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } } });
        merge(&stateful, "db", changed.clone()).await;
        merge(&daemons, "agent", changed).await;
        until(&format!("{image} rolled out"), || async {
            let (set, daemon) = (stateful.get("db").await.ok()?, daemons.get("agent").await.ok()?);
            let (status, other) = (set.status?, daemon.status?);
            let seen = status.observed_generation == set.metadata.generation
                && other.observed_generation == daemon.metadata.generation;
            let stateful = status.available_replicas == Some(2) && status.current_revision == status.update_revision;
            let daemon = other.number_available == Some(1) && other.updated_number_scheduled == Some(1);
            (seen && stateful && daemon).then_some(())
        })
        .await;
    }
    let scaled =
        json!({ "spec": { "replicas": 1, "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Delete" } } });
    merge(&stateful, "db", scaled).await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), "a");
    until("the claim that is left belongs to the set", || async {
        let claims = claims.list(&ListParams::default()).await.ok()?.items;
        let [claim] = claims.as_slice() else { return None };
        (claim.metadata.owner_references.as_ref()?.first()?.kind == "StatefulSet").then_some(())
    })
    .await;
}

async fn services(client: &Client) {
    let services: Api<Service> = Api::namespaced(client.clone(), "a");
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), "a");
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "a");
    make(
        &services,
        json!({ "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] } }),
    )
    .await;
    make(&services, json!({ "metadata": { "name": "db" }, "spec": { "ports": [{ "port": 80 }] } })).await;
    let address = |ip: &str| json!({ "metadata": { "name": "db" }, "subsets": [{ "addresses": [{ "ip": ip }], "ports": [{ "port": 1 }] }] });
    make(&endpoints, address("192.0.2.1")).await;
    until("the Endpoints of three pods", || async {
        let subsets = endpoints.get("web").await.ok()?.subsets?;
        (subsets.first()?.addresses.as_ref()?.len() == 3).then_some(())
    })
    .await;
    mirrored(&slices, "192.0.2.1").await;
    merge(&endpoints, "db", address("192.0.2.2")).await;
    mirrored(&slices, "192.0.2.2").await;
    merge(&services, "web", json!({ "metadata": { "labels": { "tier": "front" } } })).await;
    until("the label reaches slice and Endpoints", || async {
        let labelled = ListParams::default().labels("tier=front");
        let slices = slices.list(&labelled).await.ok()?.items.len();
        (slices == 1 && endpoints.list(&labelled).await.ok()?.items.len() == 1).then_some(())
    })
    .await;
}

async fn mirrored(slices: &Api<EndpointSlice>, ip: &str) {
    until(&format!("the mirror of {ip}"), || async {
        let of = ListParams::default().labels("kubernetes.io/service-name=db");
        let slice = slices.list(&of).await.ok()?.items.pop()?;
        (slice.endpoints?.first()?.addresses == [ip]).then_some(())
    })
    .await;
}

async fn nodes(client: &Client) {
    let nodes: Api<Node> = Api::all(client.clone());
    make(&nodes, json!({ "metadata": { "name": "n1" } })).await;
    let keys = |node: Node| -> Vec<String> {
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    };
    until("the fresh node has a pod CIDR and takes no pods", || async {
        let node = nodes.get("n1").await.ok()?;
        node.spec.as_ref()?.pod_cidr.as_ref()?;
        (keys(node) == ["node.kubernetes.io/not-ready:NoSchedule"]).then_some(())
    })
    .await;
    for (status, taints) in [("True", 0), ("False", 2), ("True", 0)] {
        let condition = json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } });
        nodes.patch_status("n1", &PatchParams::default(), &Patch::Merge(condition)).await.unwrap();
        until(&format!("the taints of Ready={status}"), || async {
            (keys(nodes.get("n1").await.ok()?).len() == taints).then_some(())
        })
        .await;
    }
}

async fn namespace(client: &Client) {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "a");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "a");
    until("the default account", || async { accounts.get("default").await.ok() }).await;
    let bundle = |map: ConfigMap| map.data?.get("ca.crt").cloned();
    until("the CA", || async { bundle(maps.get("kube-root-ca.crt").await.ok()?) }).await;
    merge(&maps, "kube-root-ca.crt", json!({ "data": { "ca.crt": "forged" } })).await;
    until("the CA is restored", || async {
        bundle(maps.get("kube-root-ca.crt").await.ok()?).filter(|bundle| bundle == "bundle")
    })
    .await;
}

/// `verb group/resource/subresource` of everything written, once; fails on what no role but the collector's allows.
fn audit(writes: &[Attributes]) -> BTreeSet<String> {
    let (roles, _) = defaults::all();
    let rules: Vec<_> = roles
        .into_iter()
        .filter(|role| role.name.starts_with("system:controller:") || role.name == CONTROLLERS)
        .filter(|role| role.name != COLLECTOR)
        .flat_map(|role| role.rules)
        .collect();
    let mut seen = BTreeSet::new();
    for asked in writes {
        let slash = if asked.subresource.is_empty() { "" } else { "/" };
        let line = format!("{} {}{slash}{}", asked.verb, asked.resource, asked.subresource);
        let collects = asked.verb == "delete" || asked.verb == "deletecollection";
        assert!(collects || rules.iter().any(|rule| rule.allows(asked)), "no role allows: {line}");
        seen.insert(line);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_stay_within_their_roles() {
    let recorder = Arc::new(Recorder::default());
    let server = TestServer::start_with(Config::new(Arc::new(NobodyElse), recorder.clone())).await;
    let client = server.client.clone();
    let stop = CancellationToken::new();
    let user = access::User { name: CONTROLLERS.to_owned(), ..access::User::default() };
    let config = controllers::Config {
        root_ca_pem: "bundle".to_owned(),
        cluster_cidrs: vec!["10.42.0.0/16".to_owned()],
        ..controllers::Config::default()
    };
    let running = tokio::spawn(controllers::run(config, server.server.client_as(user), stop.clone()));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    make(&namespaces, json!({ "metadata": { "name": "a" } })).await;
    let kubelet = tokio::spawn(run_pods(client.clone(), "a"));
    namespace(&client).await;
    nodes(&client).await;
    workloads(&client).await;
    sets(&client).await;
    services(&client).await;
    batch::jobs(&client).await;
    batch::cron_jobs(&client).await;
    batch::budgets(&client).await;
    namespaces.delete("a", &DeleteParams::default()).await.unwrap();
    until("the namespace is gone", || async { namespaces.get_opt("a").await.ok()?.is_none().then_some(()) }).await;
    kubelet.abort();
    stop.cancel();
    running.await.unwrap();
    let seen = audit(&recorder.writes.lock().unwrap());
    for expected in [
        "create pods",
        "patch pods",
        "update replicasets/status",
        "update replicationcontrollers/status",
        "create replicasets",
        "patch replicasets",
        "delete replicasets",
        "update deployments",
        "update deployments/status",
        "create controllerrevisions",
        "update controllerrevisions",
        "create persistentvolumeclaims",
        "update persistentvolumeclaims",
        "update statefulsets/status",
        "update daemonsets/status",
        "create endpoints",
        "update endpoints",
        "create endpointslices",
        "update endpointslices",
        "patch nodes",
        "create serviceaccounts",
        "create configmaps",
        "update configmaps",
        "update namespaces/finalize",
        "create events",
        "update jobs/status",
        "create jobs",
        "delete jobs",
        "update cronjobs/status",
        "update poddisruptionbudgets/status",
    ] {
        assert!(seen.contains(expected), "{expected} never happened: {seen:#?}");
    }
}

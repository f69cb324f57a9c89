//! StatefulSets and DaemonSets against a whole API server: scaled, updated, taken back and deleted, as clients see it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{Event, Namespace, Node, PersistentVolumeClaim, Pod};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::{TestServer, make, merge, run_pods, until};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A server with all controllers and a kubelet that starts every pod at once.
struct World {
    client: Client,
    _server: TestServer,
    _stop: DropGuard,
}

async fn world() -> World {
    let server = TestServer::start().await;
    let (client, stop) = (server.client.clone(), CancellationToken::new());
    tokio::spawn(controllers::run(controllers::Config::default(), client.clone(), stop.clone()));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    make(&namespaces, json!({ "metadata": { "name": "a" } })).await;
    let kubelet = run_pods(client.clone(), "a");
    let ended = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = kubelet => {}
            () = ended.cancelled() => {}
        }
    });
    World { client, _server: server, _stop: stop.drop_guard() }
}

impl World {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), "a")
    }

    /// `NAME IMAGE` of each live pod.
    async fn pods(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .api::<Pod>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .map(|pod| {
                let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
                format!("{} {image}", pod.metadata.name.clone().unwrap())
            })
            .collect();
        lines.sort();
        lines
    }

    async fn pods_become(&self, expected: &[&str]) {
        until(&format!("{expected:?}"), || async { (self.pods().await == expected).then_some(()) }).await;
    }
}

fn template(image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": image }] } })
}

/// The patch that `kubectl rollout undo` sends: the data of the revision with this number.
async fn undo<K: Clone + Debug + DeserializeOwned>(world: &World, api: &Api<K>, number: i64) {
    let revisions = world.api::<ControllerRevision>().list(&ListParams::default()).await.unwrap().items;
    let revision = revisions.into_iter().find(|revision| revision.revision == number).unwrap();
    api.patch("web", &PatchParams::default(), &Patch::Strategic(revision.data.unwrap().0)).await.unwrap();
}

async fn numbers(world: &World) -> Vec<i64> {
    let revisions = world.api::<ControllerRevision>().list(&ListParams::default()).await.unwrap().items;
    let mut numbers: Vec<i64> = revisions.iter().map(|revision| revision.revision).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_lives() {
    let world = world().await;
    let sets: Api<StatefulSet> = world.api();
    let claim = json!({ "metadata": { "name": "www" }, "spec": { "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": "1Gi" } } } });
    let mut pod = template("i:1");
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "www", "mountPath": "/www" }]);
    let set = json!({ "metadata": { "name": "web" }, "spec": { "replicas": 2, "serviceName": "web",
        "selector": { "matchLabels": { "app": "web" } }, "template": pod, "volumeClaimTemplates": [claim] } });
    make(&sets, set).await;
    world.pods_become(&["web-0 i:1", "web-1 i:1"]).await;
    let settled = |replicas: i32| {
        let sets = sets.clone();
        async move {
            let set = sets.get("web").await.ok()?;
            let status = set.status?;
            let done = status.observed_generation == set.metadata.generation
                && status.replicas == replicas
                && status.available_replicas == Some(replicas)
                && status.current_revision == status.update_revision;
            done.then_some(status)
        }
    };
    until("two are available", || settled(2)).await;
    let first = world.api::<Pod>().get("web-0").await.unwrap();
    let volumes = first.spec.unwrap().volumes.unwrap();
    assert_eq!(volumes[0].persistent_volume_claim.as_ref().unwrap().claim_name, "www-web-0");
    let claim = world.api::<PersistentVolumeClaim>().get("www-web-1").await.unwrap();
    assert_eq!(claim.metadata.labels.unwrap()["app"], "web");

    let three = Patch::Merge(json!({ "spec": { "replicas": 3 } }));
    let scale = sets.patch_scale("web", &PatchParams::default(), &three).await.unwrap();
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=web"));
    until("three are available", || settled(3)).await;
    let before = settled(3).await.unwrap().current_revision;

    merge(
        &sets,
        "web",
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "i:2" }] } } } }),
    )
    .await;
    world.pods_become(&["web-0 i:2", "web-1 i:2", "web-2 i:2"]).await;
    until("the update is over", || settled(3)).await;
    assert_eq!(numbers(&world).await, [1, 2]);
    undo(&world, &sets, 1).await;
    world.pods_become(&["web-0 i:1", "web-1 i:1", "web-2 i:1"]).await;
    let after = until("the update is taken back", || settled(3)).await;
    assert_eq!((numbers(&world).await, after.current_revision), (vec![2, 3], before));

    let pods: Api<Pod> = world.api();
    let failed = json!({ "status": { "phase": "Failed" } });
    let old = pods.patch_status("web-1", &PatchParams::default(), &Patch::Merge(failed)).await.unwrap();
    until("web-1 is another", || async {
        let pod = pods.get("web-1").await.ok()?;
        (pod.metadata.uid != old.metadata.uid).then_some(())
    })
    .await;
    let events = world.api::<Event>().list(&ListParams::default()).await.unwrap().items;
    let said = |text: &str| events.iter().any(|event| event.message.as_deref() == Some(text));
    assert!(said("Create Pod web-0 in StatefulSet web successful"));
    assert!(said("Create Claim www-web-0 Pod web-0 in StatefulSet web success"));
    sets.delete("web", &DeleteParams::background()).await.unwrap();
    world.pods_become(&[]).await;
    until("its revisions go with it", || async { numbers(&world).await.is_empty().then_some(()) }).await;
    assert_eq!(world.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.unwrap().items.len(), 3);
}

/// A node that is ready: daemons do not tolerate that one takes no pods yet.
async fn join(nodes: &Api<Node>, name: &str) {
    make(nodes, json!({ "metadata": { "name": name, "labels": { "disk": "ssd" } } })).await;
    let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(ready)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_set_lives() {
    let world = world().await;
    let nodes: Api<Node> = Api::all(world.client.clone());
    join(&nodes, "n1").await;
    join(&nodes, "n2").await;
    let sets: Api<DaemonSet> = world.api();
    let mut pod = template("i:1");
    pod["spec"]["nodeSelector"] = json!({ "disk": "ssd" });
    let set = json!({ "metadata": { "name": "web" }, "spec": {
        "selector": { "matchLabels": { "app": "web" } }, "template": pod } });
    let made = make(&sets, set).await;
    assert_eq!(made.metadata.annotations.unwrap()["deprecated.daemonset.template.generation"], "1");
    let settled = |nodes: i32| {
        let sets = sets.clone();
        async move {
            let set = sets.get("web").await.ok()?;
            let status = set.status?;
            let done = status.observed_generation == set.metadata.generation
                && status.desired_number_scheduled == nodes
                && status.number_available.unwrap_or(0) == nodes
                && status.updated_number_scheduled.unwrap_or(0) == nodes;
            done.then_some(())
        }
    };
    until("two run", || settled(2)).await;
    merge(&nodes, "n2", json!({ "metadata": { "labels": { "disk": null } } })).await;
    until("one runs", || settled(1)).await;
    until("the other is gone", || async { (world.pods().await.len() == 1).then_some(()) }).await;
    join(&nodes, "n3").await;
    until("one joins", || settled(2)).await;

    merge(
        &sets,
        "web",
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "i:2" }] } } } }),
    )
    .await;
    until("the update is over", || settled(2)).await;
    assert!(world.pods().await.iter().all(|pod| pod.ends_with("i:2")));
    undo(&world, &sets, 1).await;
    until("the update is taken back", || settled(2)).await;
    assert!(world.pods().await.iter().all(|pod| pod.ends_with("i:1")));
    assert_eq!(numbers(&world).await, [2, 3]);
    let generation = sets.get("web").await.unwrap().metadata.annotations.unwrap();
    assert_eq!(generation["deprecated.daemonset.template.generation"], "3");

    sets.delete("web", &DeleteParams::background()).await.unwrap();
    until("its pods and revisions go with it", || async {
        (world.pods().await.is_empty() && numbers(&world).await.is_empty()).then_some(())
    })
    .await;
}

//! Storage against a whole API server: claims and volumes bind, disks are made, grow and go, and what is in use stays.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use k8s_openapi::api::core::v1::{Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams};
use kube::client::Body;
use serde_json::{Value, json};
use testkit::{TestServer, make, merge, until};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The disks of all nodes: name to `NODE BYTES`.
type Disks = Arc<Mutex<BTreeMap<String, String>>>;

/// A server with all controllers, and nodes that keep their disks in a map.
struct World {
    client: Client,
    disks: Disks,
    _server: TestServer,
    _stop: DropGuard,
}

/// What a node answers; `full` ones have no room.
fn answer(disks: &Disks, method: &str, path: &str, body: &Value) -> Value {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (node, disk) = (parts[3], parts[7].to_owned());
    let mut disks = disks.lock().unwrap();
    match method {
        "POST" if node == "full" => json!({"refused": "not enough free storage"}),
        "DELETE" => {
            disks.remove(&disk);
            json!({})
        }
        _ => {
            disks.insert(disk.clone(), format!("{node} {}", body["bytes"]));
            json!({"path": format!("/disks/{disk}"), "bytes": body["bytes"]})
        }
    }
}

/// The server's client, where requests to nodes about disks are answered here.
fn with_nodes(inner: &Client, disks: &Disks) -> Client {
    let (inner, disks) = (inner.clone(), disks.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (inner, disks) = (inner.clone(), disks.clone());
        async move {
            let path = request.uri().path().to_owned();
            if !path.contains("/proxy/tug/disks/") {
                return inner.send(request).await;
            }
            let method = request.method().to_string();
            let body = request.into_body().collect_bytes().await?;
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            Ok(Response::new(Body::from(answer(&disks, &method, &path, &body).to_string().into_bytes())))
        }
    });
    Client::new(service, "default")
}

async fn world() -> World {
    let server = TestServer::start().await;
    let (client, stop, disks) = (server.client.clone(), CancellationToken::new(), Disks::default());
    tokio::spawn(controllers::run(controllers::Config::default(), with_nodes(&client, &disks), stop.clone()));
    make::<Namespace>(&Api::all(client.clone()), json!({"metadata": {"name": "a"}})).await;
    for name in ["n1", "full"] {
        let labels = json!({"kubernetes.io/hostname": name});
        make::<Node>(&Api::all(client.clone()), json!({"metadata": {"name": name, "labels": labels}})).await;
    }
    make::<StorageClass>(&Api::all(client.clone()), reconcile::volume::disk::default_class_object()).await;
    World { client, disks, _server: server, _stop: stop.drop_guard() }
}

impl World {
    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), "a")
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }

    async fn claim(&self, name: &str, change: Value) {
        let mut claim = json!({
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        });
        reconcile::plan::merge(&mut claim, &change);
        make(&self.claims(), claim).await;
    }

    /// `PHASE VOLUME SIZE` of a claim.
    async fn claim_becomes(&self, name: &str, expected: &str) {
        until(expected, || async {
            let claim = self.claims().get_opt(name).await.ok()?;
            let is = claim.map_or("gone".to_owned(), |claim| {
                let (spec, status) = (claim.spec.unwrap_or_default(), claim.status.unwrap_or_default());
                let size =
                    status.capacity.and_then(|mut all| all.remove("storage")).map_or("-".to_owned(), |size| size.0);
                let volume =
                    spec.volume_name.map_or("-", |name| if name.starts_with("pvc-") { "made" } else { "static" });
                format!("{} {volume} {size}", status.phase.unwrap_or_default())
            });
            (is == expected).then_some(())
        })
        .await;
    }

    async fn volume_becomes(&self, name: &str, expected: &str) {
        until(expected, || async {
            let volume = self.volumes().get_opt(name).await.ok()?;
            let is = volume.map_or(Some("gone".to_owned()), |volume| volume.status?.phase)?;
            (is == expected).then_some(())
        })
        .await;
    }

    async fn told(&self, reason: &str) -> String {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "a");
        until(reason, || async {
            let all = events.list(&ListParams::default()).await.ok()?;
            all.items.into_iter().find(|event| event.reason.as_deref() == Some(reason))?.message
        })
        .await
    }

    async fn select(&self, claim: &str, node: &str) {
        let annotations = json!({"volume.kubernetes.io/selected-node": node});
        merge(&self.claims(), claim, json!({"metadata": {"annotations": annotations}})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_and_volumes_find_each_other() {
    let world = world().await;
    world.claim("data", json!({"spec": {"storageClassName": ""}})).await;
    world.told("FailedBinding").await;
    let volume = json!({
        "metadata": {"name": "v"},
        "spec": {"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}},
    });
    make(&world.volumes(), volume).await;
    world.claim_becomes("data", "Bound static 2Gi").await;
    world.volume_becomes("v", "Bound").await;

    // Both wait for their end: the claim for its pod, the volume for its claim.
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "a");
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    let spec = json!({"nodeName": "n1", "containers": [{"name": "c", "image": "i"}], "volumes": volumes});
    make(&pods, json!({"metadata": {"name": "p"}, "spec": spec})).await;
    until("both are protected", || async {
        let claim = world.claims().get("data").await.ok()?.metadata.finalizers?;
        let volume = world.volumes().get("v").await.ok()?.metadata.finalizers?;
        (claim.len() + volume.len() == 2).then_some(())
    })
    .await;
    world.volumes().delete("v", &DeleteParams::default()).await.unwrap();
    world.claims().delete("data", &DeleteParams::default()).await.unwrap();
    let held = world.claims().get("data").await.unwrap();
    assert_eq!(held.metadata.finalizers, Some(vec!["kubernetes.io/pvc-protection".to_owned()]));
    pods.delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    world.claim_becomes("data", "gone").await;
    world.volume_becomes("v", "gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_lives_as_long_as_its_claim() {
    let world = world().await;
    world.claim("data", json!({})).await;
    world.told("WaitForFirstConsumer").await;
    let class = world.claims().get("data").await.unwrap().spec.unwrap().storage_class_name;
    assert_eq!(class.as_deref(), Some("local"), "the default class");

    // A node without room sends the claim back to the scheduler.
    world.select("data", "full").await;
    assert!(world.told("ProvisioningFailed").await.contains("not enough free storage"));
    until("the node is taken back", || async {
        let annotations = world.claims().get("data").await.ok()?.metadata.annotations.unwrap_or_default();
        (!annotations.contains_key("volume.kubernetes.io/selected-node")).then_some(())
    })
    .await;
    world.select("data", "n1").await;
    world.claim_becomes("data", "Bound made 1Gi").await;
    world.told("ProvisioningSucceeded").await;
    assert_eq!(world.disks.lock().unwrap().values().cloned().collect::<Vec<_>>(), ["n1 1073741824"]);

    merge(&world.claims(), "data", json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}})).await;
    world.claim_becomes("data", "Bound made 2Gi").await;
    assert_eq!(world.disks.lock().unwrap().values().cloned().collect::<Vec<_>>(), ["n1 2147483648"]);
    world.told("FileSystemResizeSuccessful").await;

    world.claims().delete("data", &DeleteParams::default()).await.unwrap();
    until("disk and volume are gone", || async {
        let volumes = world.volumes().list(&ListParams::default()).await.ok()?;
        (volumes.items.is_empty() && world.disks.lock().unwrap().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_claims_come_with_their_pod() {
    let world = world().await;
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "a");
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let volumes = json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]);
    let spec = json!({"containers": [{"name": "c", "image": "i"}], "volumes": volumes});
    make(&pods, json!({"metadata": {"name": "p"}, "spec": spec})).await;
    world.claim_becomes("p-scratch", "Pending - -").await;
    pods.delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    world.claim_becomes("p-scratch", "gone").await;
}

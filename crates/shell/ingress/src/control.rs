//! Runs once in a cluster: shows in the status of each Ingress where it is served, and says what is wrong with it.

use std::collections::{BTreeSet, HashMap};

use client::{EventKind, Informer, InformerConfig, Recorder};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use routes::Key;
use routes::compile::Plan;
use routes::settings::CONTROLLER;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::run::PORTS_ANNOTATION;
use crate::world::{self, World};

/// The class that Tug brings.
pub const CLASS: &str = "tug";
const COMPONENT: &str = "tug-ingress-controller";
const RETRY: std::time::Duration = std::time::Duration::from_secs(5);
/// Statuses written by one round; the next round writes the rest.
const WRITES_MAX: usize = 200;

/// A node that may serve: its address, when its ingress listens.
struct NodeView {
    address: Option<String>,
}

impl NodeView {
    fn of(node: Node) -> Self {
        let listens = node.metadata.annotations.iter().flatten().any(|(name, _)| name == PORTS_ANNOTATION);
        let status = node.status.unwrap_or_default();
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        let addresses = status.addresses.unwrap_or_default();
        let of_type = |wanted: &str| addresses.iter().find(|address| address.type_ == wanted);
        let address = of_type("ExternalIP").or_else(|| of_type("InternalIP")).map(|address| address.address.clone());
        Self { address: address.filter(|_| listens && ready) }
    }
}

/// Makes Tug's IngressClass, the default one, unless it exists: who changed or deleted it between starts wanted it so
/// only as far as the change went.
///
/// # Errors
/// The API refused it.
pub async fn bootstrap(client: &Client) -> Result<(), kube::Error> {
    let class: IngressClass = serde_json::from_value(json!({
        "metadata": {"name": CLASS, "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": CONTROLLER},
    }))
    .map_err(kube::Error::SerdeError)?;
    match Api::<IngressClass>::all(client.clone()).create(&PostParams::default(), &class).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}

/// Keeps statuses until `stop`.
pub async fn control(client: Client, stop: CancellationToken) {
    let stop = stop.child_token();
    let _ended = stop.clone().drop_guard();
    if let Err(error) = bootstrap(&client).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot make the IngressClass {CLASS:?}");
    }
    let mut world = World::new(client.clone(), stop.clone());
    let nodes: Informer<NodeView> =
        Informer::start(client.clone(), InformerConfig::all("/api/v1/nodes"), NodeView::of, &[], stop.clone());
    world::wake_on(&nodes, world.wake());
    let mut controller =
        Controller { recorder: Recorder::new(client.clone(), COMPONENT, None), client, told: HashMap::new() };
    let mut again = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = world.changed() => {}
            () = tokio::time::sleep(RETRY), if again => {}
        }
        if !nodes.is_synced() {
            continue;
        }
        let Some(plan) = world.compile(None) else { continue };
        let addresses: BTreeSet<String> = nodes.list().iter().filter_map(|node| node.address.clone()).collect();
        again = !controller.round(&world, &plan, &addresses).await;
    }
}

struct Controller {
    client: Client,
    recorder: Recorder,
    /// What was said about each Ingress last.
    told: HashMap<Key, Vec<String>>,
}

impl Controller {
    /// Writes what differs; answers whether all is written.
    async fn round(&mut self, world: &World, plan: &Plan, addresses: &BTreeSet<String>) -> bool {
        let loaded = world.certificates();
        let mut written = 0;
        let mut complete = true;
        for verdict in &plan.ingresses {
            let Some(ingress) = world.ingresses.get(&verdict.key.namespace, &verdict.key.name) else { continue };
            let mut problems = verdict.problems.clone();
            for (_, secret) in &ingress.view.view.tls {
                let key = secret.as_ref().map(|name| Key::new(&verdict.key.namespace, name));
                if let Some((key, Err(why))) = key.and_then(|key| loaded.get_key_value(&key)) {
                    problems.push(format!("certificate of Secret {}: {why}", key.name));
                }
            }
            self.tell(&verdict.key, &ingress.uid, problems);
            let shown: BTreeSet<String> = ingress.view.addresses.iter().cloned().collect();
            if shown == *addresses {
                continue;
            }
            if written == WRITES_MAX {
                return false;
            }
            written += 1;
            complete &= self.write(&verdict.key, addresses).await;
        }
        let known: BTreeSet<&Key> = plan.ingresses.iter().map(|verdict| &verdict.key).collect();
        self.told.retain(|key, _| known.contains(key));
        complete
    }

    fn tell(&mut self, key: &Key, uid: &str, problems: Vec<String>) {
        let before = self.told.insert(key.clone(), problems.clone()).unwrap_or_default();
        let about = ObjectReference {
            api_version: Some("networking.k8s.io/v1".to_owned()),
            kind: Some("Ingress".to_owned()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        for problem in problems.iter().filter(|problem| !before.contains(problem)) {
            self.recorder.record(&about, EventKind::Warning, "NotServed", problem.as_str());
        }
        if problems.is_empty() && !before.is_empty() {
            self.recorder.record(&about, EventKind::Normal, "Served", "every backend and certificate is usable");
        }
    }

    async fn write(&self, key: &Key, addresses: &BTreeSet<String>) -> bool {
        let points: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let patch = json!({"status": {"loadBalancer": {"ingress": points}}});
        let api: Api<Ingress> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.is_not_found() => true,
            Err(error) => {
                tracing::warn!(ingress = %key, error = &error as &dyn std::error::Error, "cannot write the status");
                false
            }
        }
    }
}

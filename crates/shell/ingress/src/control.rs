//! Runs once in a cluster: shows in the status of each Ingress where it is served, and says what is wrong with it.

use std::collections::{BTreeSet, HashMap};

use client::{EventKind, Informer, InformerConfig, Recorder};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use routes::Key;
use routes::compile::Plan;
use routes::gateway::objects::GROUP;
use routes::gateway::status::{self, RouteStatus};
use routes::settings::CONTROLLER;
use serde_json::{Value, json};
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

/// A kind of Gateway API.
fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1", kind), plural)
}

/// Makes Tug's GatewayClass unless it exists; the definitions may have been made a moment ago.
async fn make_gateway_class(client: &Client) -> Result<(), kube::Error> {
    let resource = resource("GatewayClass", "gatewayclasses");
    let class = DynamicObject::new(CLASS, &resource).data(json!({"spec": {"controllerName": CONTROLLER}}));
    match Api::<DynamicObject>::all_with(client.clone(), &resource).create(&PostParams::default(), &class).await {
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
    let mut has_class = false;
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
        if !has_class && world.gateway.classes.is_synced() {
            has_class = make_gateway_class(&controller.client).await.is_ok();
        }
        let complete = controller.round(&world, &plan, &addresses).await;
        let addresses: Vec<String> = addresses.into_iter().collect();
        let complete = controller.gateways(&world, &plan, &addresses).await && complete;
        again = !complete || !has_class;
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

    /// Writes the statuses of Gateway API's objects that differ; answers whether all is written.
    async fn gateways(&self, world: &World, plan: &Plan, addresses: &[String]) -> bool {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let world = &world.gateway;
        let mut wanted: Vec<(ApiResource, &Key, Value, Value)> = Vec::new();
        for key in &plan.gateway.classes {
            let Some(known) = world.classes.get_key(&at(key)) else { continue };
            let Some(known) = known.view.as_ref() else { continue };
            let status = status::class(known.object.generation, &known.status, &now);
            wanted.push((resource("GatewayClass", "gatewayclasses"), key, status, known.status.clone()));
        }
        for gateway in &plan.gateway.gateways {
            let Some(known) = world.gateways.get_key(&at(&gateway.key)) else { continue };
            let Some(known) = known.view.as_ref() else { continue };
            let status = gateway.json(addresses, &known.status, &now);
            wanted.push((resource("Gateway", "gateways"), &gateway.key, status, known.status.clone()));
        }
        for route in &plan.gateway.routes {
            let Some(known) = world.routes.get_key(&at(&route.key)) else { continue };
            let Some(known) = known.view.as_ref() else { continue };
            let status = route.json(&known.status, &now);
            wanted.push((resource("HTTPRoute", "httproutes"), &route.key, status, known.status.clone()));
        }
        // A route whose last Gateway of ours went away keeps nothing that we said about it.
        let routes = world.routes.list();
        let left = routes.iter().filter_map(|known| known.view.as_ref()).filter(|known| {
            let parents = known.status["parents"].as_array();
            let ours = parents.is_some_and(|all| all.iter().any(|parent| parent["controllerName"] == CONTROLLER));
            ours && plan.gateway.routes.iter().all(|route| route.key != known.object.key)
        });
        for known in left {
            let none =
                RouteStatus { key: known.object.key.clone(), generation: known.object.generation, parents: vec![] };
            let status = none.json(&known.status, &now);
            wanted.push((resource("HTTPRoute", "httproutes"), &known.object.key, status, known.status.clone()));
        }
        wanted.retain(|(_, _, wanted, written)| status::differs(wanted, written));
        let mut complete = wanted.len() <= WRITES_MAX;
        for (resource, key, status, _) in wanted.into_iter().take(WRITES_MAX) {
            let client = self.client.clone();
            let api: Api<DynamicObject> = match key.namespace.as_str() {
                "" => Api::all_with(client, &resource),
                namespace => Api::namespaced_with(client, namespace, &resource),
            };
            let patch = Patch::Merge(json!({"status": status}));
            match api.patch_status(&key.name, &PatchParams::default(), &patch).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => {
                    tracing::warn!(kind = resource.kind, %key, error = &error as &dyn std::error::Error, "cannot write the status");
                    complete = false;
                }
            }
        }
        complete
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

fn at(key: &Key) -> client::ObjectKey {
    client::ObjectKey::new(&*key.namespace, &*key.name)
}

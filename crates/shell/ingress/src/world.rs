//! What routing depends on, followed through the API: the least that there can be while nothing is to be served.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Cached, Informer, InformerConfig};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::Client;
use kube::core::DynamicObject;
use routes::Key;
use routes::compile::{Plan, Snapshot, compile};
use routes::gateway::objects::{ClassSpec, GatewaySpec, GrantSpec, Object, RouteSpec};
use routes::gateway::{self, Objects};
use routes::settings::Settings;
use routes::view::{ClassView, IngressView, ServiceView, SliceView};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::certificates::{Follower, Loaded};

/// Where the cluster's settings are.
pub const SETTINGS_NAMESPACE: &str = "kube-system";
pub const SETTINGS_NAME: &str = "tug-ingress";
const SETTINGS_KEY: &str = "settings.yaml";
/// Without its definitions Gateway API is never read; then Ingresses wait for it no longer than this.
const GATEWAY_WAIT_MAX: Duration = Duration::from_secs(3);

/// An Ingress, and the addresses that its status shows.
pub struct IngressAndStatus {
    pub view: IngressView,
    pub addresses: Vec<String>,
}

/// An object of Gateway API, and the status that is written.
pub struct Seen<S> {
    pub object: Object<S>,
    pub status: Value,
}

/// `None` stands for an object that does not fit: another version of the definitions may be installed.
type Kind<S> = Informer<Option<Seen<S>>>;

fn seen<S: DeserializeOwned>(mut object: DynamicObject) -> Option<Seen<S>> {
    let spec = object.data.get_mut("spec").map(Value::take).unwrap_or_default();
    let spec = serde_json::from_value(spec)
        .inspect_err(
            |error| tracing::warn!(name = ?object.metadata.name, %error, "an object of Gateway API is not understood"),
        )
        .ok()?;
    let meta = object.metadata;
    Some(Seen {
        object: Object {
            key: Key::new(meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default()),
            generation: meta.generation.unwrap_or_default(),
            created: meta.creation_timestamp.map_or(0, |time| time.0.as_second()),
            spec,
        },
        status: object.data.get_mut("status").map(Value::take).unwrap_or_default(),
    })
}

/// The objects of Gateway API.
pub struct GatewayWorld {
    pub classes: Kind<ClassSpec>,
    pub gateways: Kind<GatewaySpec>,
    pub routes: Kind<RouteSpec>,
    grants: Kind<GrantSpec>,
    since: Instant,
}

impl GatewayWorld {
    fn new(client: &Client, wake: &Arc<Notify>, stop: &CancellationToken) -> Self {
        let kind = |plural: &str| InformerConfig::all(format!("/apis/gateway.networking.k8s.io/v1/{plural}"));
        Self {
            classes: start(client, wake, stop, kind("gatewayclasses"), seen),
            gateways: start(client, wake, stop, kind("gateways"), seen),
            routes: start(client, wake, stop, kind("httproutes"), seen),
            grants: start(client, wake, stop, kind("referencegrants"), seen),
            since: Instant::now(),
        }
    }

    fn is_synced(&self) -> bool {
        let read = self.classes.is_synced() && self.gateways.is_synced();
        (read && self.routes.is_synced() && self.grants.is_synced()) || self.since.elapsed() > GATEWAY_WAIT_MAX
    }
}

fn objects<S>(all: &[Arc<Cached<Option<Seen<S>>>>]) -> Vec<&Object<S>> {
    all.iter().filter_map(|cached| Some(&cached.view.as_ref()?.object)).collect()
}

/// What is followed only while an Ingress or a Gateway is Tug's.
struct Endpoints {
    services: Informer<ServiceView>,
    slices: Informer<SliceView>,
    namespaces: Informer<BTreeMap<String, String>>,
    stop: CancellationToken,
}

/// The objects.
pub struct World {
    client: Client,
    stop: CancellationToken,
    wake: Arc<Notify>,
    pub ingresses: Informer<IngressAndStatus>,
    classes: Informer<ClassView>,
    pub gateway: GatewayWorld,
    settings_map: Informer<Option<String>>,
    settings: Settings,
    /// The text that was complained about last.
    refused: Option<String>,
    endpoints: Option<Endpoints>,
    certificates: Follower,
}

/// Wakes the waiter when something changes, and once when the first list is complete.
pub fn wake_on<V: Send + Sync + 'static>(informer: &Informer<V>, wake: &Arc<Notify>) {
    let (mut changes, waiting, wake) = (informer.changes(), informer.clone(), wake.clone());
    tokio::spawn(async move {
        waiting.synced().await;
        drop(waiting);
        loop {
            wake.notify_one();
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
}

impl World {
    /// Begins to follow; everything ends with `stop`.
    pub fn new(client: Client, stop: CancellationToken) -> Self {
        let wake = Arc::new(Notify::new());
        let ingresses = start(
            &client,
            &wake,
            &stop,
            InformerConfig::all("/apis/networking.k8s.io/v1/ingresses"),
            |ingress: Ingress| {
                let shown = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
                let shown = shown.into_iter().flat_map(|balancer| balancer.ingress.iter().flatten());
                IngressAndStatus {
                    view: IngressView::from(&ingress),
                    addresses: shown.filter_map(|point| point.ip.clone().or_else(|| point.hostname.clone())).collect(),
                }
            },
        );
        let classes = InformerConfig::all("/apis/networking.k8s.io/v1/ingressclasses");
        let classes = start(&client, &wake, &stop, classes, |class: IngressClass| ClassView::from(&class));
        let map = InformerConfig::all(format!("/api/v1/namespaces/{SETTINGS_NAMESPACE}/configmaps"))
            .fields(format!("metadata.name={SETTINGS_NAME}"));
        let settings_map =
            start(&client, &wake, &stop, map, |map: ConfigMap| map.data.and_then(|mut data| data.remove(SETTINGS_KEY)));
        let certificates = Follower::new(client.clone(), wake.clone(), stop.clone());
        let gateway = GatewayWorld::new(&client, &wake, &stop);
        let late = wake.clone();
        tokio::spawn(async move {
            tokio::time::sleep(GATEWAY_WAIT_MAX).await;
            late.notify_one();
        });
        Self {
            client,
            stop,
            wake,
            ingresses,
            classes,
            gateway,
            settings_map,
            settings: Settings::default(),
            refused: None,
            endpoints: None,
            certificates,
        }
    }

    pub fn wake(&self) -> &Arc<Notify> {
        &self.wake
    }

    /// Waits for a change.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What each followed Secret gave.
    pub fn certificates(&self) -> BTreeMap<Key, Loaded> {
        self.certificates.loaded()
    }

    /// Reads the settings; unusable ones are told about once and leave the former in force.
    fn read_settings(&mut self) {
        let text = self.settings_map.get(SETTINGS_NAMESPACE, SETTINGS_NAME).and_then(|map| map.view.clone());
        let Some(text) = text else {
            self.settings = Settings::default();
            return;
        };
        match serde_saphyr::from_str::<Settings>(&text) {
            Ok(settings) => {
                self.settings = settings;
                self.refused = None;
            }
            Err(error) => {
                if self.refused.as_ref() != Some(&text) {
                    tracing::warn!(%error, "ConfigMap {SETTINGS_NAMESPACE}/{SETTINGS_NAME} is not understood; the settings stay as they were");
                    self.refused = Some(text);
                }
            }
        }
    }

    /// The plan for what is known now; `None` until everything that it depends on has been read.
    pub fn compile(&mut self, zone: Option<&str>) -> Option<Plan> {
        if !(self.ingresses.is_synced() && self.classes.is_synced() && self.settings_map.is_synced()) {
            return None;
        }
        if !self.gateway.is_synced() {
            return None;
        }
        self.read_settings();
        let (ingresses, classes) = (self.ingresses.list(), self.classes.list());
        let classes: Vec<&ClassView> = classes.iter().map(|class| &class.view).collect();
        let ingresses: Vec<&IngressView> = ingresses.iter().map(|ingress| &ingress.view.view).collect();
        let (gateway_classes, gateways) = (self.gateway.classes.list(), self.gateway.gateways.list());
        let (http_routes, grants) = (self.gateway.routes.list(), self.gateway.grants.list());
        let mut gateway = Objects {
            classes: objects(&gateway_classes),
            gateways: objects(&gateways),
            routes: objects(&http_routes),
            grants: objects(&grants),
            ..Objects::default()
        };
        let needed = gateway::has_ours(&gateway)
            || ingresses.iter().any(|view| routes::ingress::is_ours(view, classes.iter().copied()));
        let found = self.endpoints(needed)?;
        gateway.namespaces = found.namespaces;
        let problem = |(key, loaded): (Key, Loaded)| (key, loaded.err().unwrap_or_default());
        gateway.certificates = self.certificates.loaded().into_iter().map(problem).collect();
        let snapshot = Snapshot {
            ingresses,
            classes,
            services: found.services.iter().map(|service| &service.view).collect(),
            slices: found.slices.iter().map(|slice| &slice.view).collect(),
            gateway,
            zone,
        };
        let plan = compile(&snapshot, &self.settings);
        self.certificates.follow(&plan.table.secrets());
        Some(plan)
    }

    /// Services, slices and namespaces, where they are needed; `None` until they have been read.
    fn endpoints(&mut self, needed: bool) -> Option<Found> {
        if !needed {
            if let Some(endpoints) = self.endpoints.take() {
                endpoints.stop.cancel();
            }
            return Some(Found::default());
        }
        let endpoints = self.endpoints.get_or_insert_with(|| {
            let stop = self.stop.child_token();
            let (client, wake) = (&self.client, &self.wake);
            let services = InformerConfig::all("/api/v1/services");
            let slices = InformerConfig::all("/apis/discovery.k8s.io/v1/endpointslices");
            let namespaces = InformerConfig::all("/api/v1/namespaces");
            let labels = |namespace: Namespace| namespace.metadata.labels.unwrap_or_default();
            Endpoints {
                services: start(client, wake, &stop, services, |service: Service| ServiceView::from(&service)),
                slices: start(client, wake, &stop, slices, |slice: EndpointSlice| SliceView::from(&slice)),
                namespaces: start(client, wake, &stop, namespaces, labels),
                stop,
            }
        });
        if !(endpoints.services.is_synced() && endpoints.slices.is_synced() && endpoints.namespaces.is_synced()) {
            return None;
        }
        let namespaces = endpoints.namespaces.list();
        let labels =
            |namespace: &Arc<Cached<BTreeMap<String, String>>>| (namespace.key.name.clone(), namespace.view.clone());
        Some(Found {
            services: endpoints.services.list(),
            slices: endpoints.slices.list(),
            namespaces: namespaces.iter().map(labels).collect(),
        })
    }
}

/// What routes lead to.
#[derive(Default)]
struct Found {
    services: Vec<Arc<Cached<ServiceView>>>,
    slices: Vec<Arc<Cached<SliceView>>>,
    /// Their labels.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

fn start<K, V>(
    client: &Client,
    wake: &Arc<Notify>,
    stop: &CancellationToken,
    config: InformerConfig,
    project: fn(K) -> V,
) -> Informer<V>
where
    K: kube::Resource + DeserializeOwned + Clone + Debug + Send + 'static,
    V: Send + Sync + 'static,
{
    let informer = Informer::start(client.clone(), config, project, &[], stop.clone());
    wake_on(&informer, wake);
    informer
}

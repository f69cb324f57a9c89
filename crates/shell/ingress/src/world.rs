//! What routing depends on, followed through the API: the least that there can be while nothing is to be served.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use client::{Cached, Informer, InformerConfig};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::Client;
use routes::Key;
use routes::compile::{Plan, Snapshot, compile};
use routes::settings::Settings;
use routes::view::{ClassView, IngressView, ServiceView, SliceView};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::certificates::{Follower, Loaded};

/// Where the cluster's settings are.
pub const SETTINGS_NAMESPACE: &str = "kube-system";
pub const SETTINGS_NAME: &str = "tug-ingress";
const SETTINGS_KEY: &str = "settings.yaml";

/// An Ingress, and the addresses that its status shows.
pub struct IngressAndStatus {
    pub view: IngressView,
    pub addresses: Vec<String>,
}

/// What is followed only while an Ingress or a Gateway is Tug's.
struct Endpoints {
    services: Informer<ServiceView>,
    slices: Informer<SliceView>,
    stop: CancellationToken,
}

/// The objects.
pub struct World {
    client: Client,
    stop: CancellationToken,
    wake: Arc<Notify>,
    pub ingresses: Informer<IngressAndStatus>,
    classes: Informer<ClassView>,
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
        Self {
            client,
            stop,
            wake,
            ingresses,
            classes,
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
        self.read_settings();
        let (ingresses, classes) = (self.ingresses.list(), self.classes.list());
        let classes: Vec<&ClassView> = classes.iter().map(|class| &class.view).collect();
        let ingresses: Vec<&IngressView> = ingresses.iter().map(|ingress| &ingress.view.view).collect();
        let needed = ingresses.iter().any(|view| routes::ingress::is_ours(view, classes.iter().copied()));
        let (services, slices) = self.endpoints(needed)?;
        let snapshot = Snapshot {
            ingresses,
            classes,
            services: services.iter().map(|service| &service.view).collect(),
            slices: slices.iter().map(|slice| &slice.view).collect(),
            zone,
        };
        let plan = compile(&snapshot, &self.settings);
        self.certificates.follow(&plan.table.secrets());
        Some(plan)
    }

    /// Services and slices, where they are needed; `None` until they have been read.
    #[allow(clippy::type_complexity)]
    fn endpoints(&mut self, needed: bool) -> Option<(Vec<Arc<Cached<ServiceView>>>, Vec<Arc<Cached<SliceView>>>)> {
        if !needed {
            if let Some(endpoints) = self.endpoints.take() {
                endpoints.stop.cancel();
            }
            return Some((Vec::new(), Vec::new()));
        }
        let endpoints = self.endpoints.get_or_insert_with(|| {
            let stop = self.stop.child_token();
            let services = InformerConfig::all("/api/v1/services");
            let slices = InformerConfig::all("/apis/discovery.k8s.io/v1/endpointslices");
            Endpoints {
                services: start(&self.client, &self.wake, &stop, services, |service: Service| {
                    ServiceView::from(&service)
                }),
                slices: start(&self.client, &self.wake, &stop, slices, |slice: EndpointSlice| SliceView::from(&slice)),
                stop,
            }
        });
        (endpoints.services.is_synced() && endpoints.slices.is_synced())
            .then(|| (endpoints.services.list(), endpoints.slices.list()))
    }
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

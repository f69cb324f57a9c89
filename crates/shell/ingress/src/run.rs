//! The ingress of one node, from start to cancellation.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Informer, InformerConfig};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use routes::settings::Settings;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::certificates::Store;
use crate::limits::BIND_RETRY;
use crate::listen::Listeners;
use crate::log::AccessLog;
use crate::metrics::Metrics;
use crate::serving::Serving;
use crate::worker::Shared;
use crate::world::{self, World};

/// On a Node: the ports on which its ingress listens, with commas between them. Absent while it listens on none.
pub const PORTS_ANNOTATION: &str = "ingress.tug.local/ports";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// A plan takes at most this part of the time, so that a flood of changes costs little more than a few of them.
const PLANNING_SHARE: u32 = 4;
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The ingress of a node.
#[derive(Clone)]
pub struct IngressConfig {
    pub node_name: String,
    /// Where it listens.
    pub addresses: Vec<IpAddr>,
    /// File of the access log, should it be switched on.
    pub access_log: PathBuf,
    /// Tells others what is served right now.
    pub serving: Serving,
    pub metrics: Arc<Metrics>,
}

/// What the node says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Own {
    labels: BTreeMap<String, String>,
    ports: String,
}

impl Own {
    fn of(node: Node) -> Self {
        let ports = node.metadata.annotations.and_then(|mut all| all.remove(PORTS_ANNOTATION));
        Self { labels: node.metadata.labels.unwrap_or_default(), ports: ports.unwrap_or_default() }
    }

    fn is_chosen(&self, settings: &Settings) -> bool {
        settings.node_selector.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

/// Serves Ingresses and Gateways on this node until `stop`. While there are none it listens on nothing.
///
/// # Errors
/// None; what goes wrong is told and tried again.
pub async fn run(config: IngressConfig, client: Client, stop: CancellationToken) -> anyhow::Result<()> {
    let stop = stop.child_token();
    let _ended = stop.clone().drop_guard();
    let mut world = World::new(client.clone(), stop.clone());
    let own = InformerConfig::all("/api/v1/nodes").fields(format!("metadata.name={}", config.node_name));
    let own: Informer<Own> = Informer::start(client.clone(), own, Own::of, &[], stop.clone());
    world::wake_on(&own, world.wake());
    let store = Store::default();
    let shared = Shared {
        serving: config.serving.clone(),
        metrics: config.metrics.clone(),
        log: AccessLog::new(config.access_log.clone()),
    };
    let mut listeners = Listeners::new(config.addresses.clone(), shared, store.clone());
    let mut retry = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = world.changed() => {}
            () = tokio::time::sleep(retry.unwrap_or(Duration::MAX)), if retry.is_some() => {}
        }
        let began = Instant::now();
        let Some(node) = own.get("", &config.node_name) else { continue };
        let Some(plan) = world.compile(node.labels.get(ZONE_LABEL).map(String::as_str)) else { continue };
        let settings = world.settings().clone();
        let chosen = node.is_chosen(&settings);
        let wanted: BTreeMap<u16, bool> =
            plan.table.ports.iter().filter(|_| chosen).map(|(port, what)| (*port, what.tls)).collect();
        store.replace(&world.certificates());
        config.serving.replace(plan.table, settings);
        let all = listeners.apply(&wanted).await;
        retry = (!all).then_some(BIND_RETRY);
        let ports: Vec<String> = listeners.ports().map(|port| port.to_string()).collect();
        let published = publish(&client, &config.node_name, &node.ports, &ports.join(",")).await;
        if !published {
            retry = Some(BIND_RETRY);
        }
        tokio::time::sleep((began.elapsed() * PLANNING_SHARE).min(PAUSE_MAX)).await;
    }
}

/// Says on the Node where it listens; answers whether that is said.
async fn publish(client: &Client, node: &str, known: &str, ports: &str) -> bool {
    if known == ports {
        return true;
    }
    let value = if ports.is_empty() { json!(null) } else { json!(ports) };
    let patch = json!({"metadata": {"annotations": {PORTS_ANNOTATION: value}}});
    let nodes: Api<Node> = Api::all(client.clone());
    match nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot say on the Node where the ingress listens"
            );
            false
        }
    }
}

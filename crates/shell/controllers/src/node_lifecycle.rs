//! Node lifecycle and pod collection: watches Nodes and their Leases, times silence on its own clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{ApiErrorExt, Informer, InformerConfig, ObjectKey, Source};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use reconcile::PodView;
use reconcile::conditions::seconds;
use reconcile::node_lifecycle::{Pending, collect_pods, is_out_of_service, plan};
use reconcile::plan::{NODES, PODS};
use tokio::time::Instant;

use crate::runner::Context;
use crate::sources::{BY_NODE, Nodes, Pods};

const NAME: &str = "node-lifecycle-controller";
const COLLECTOR: &str = "pod-garbage-collector-controller";
/// A node has to be missing this long before its pods are removed by force: it may be about to register again.
const QUARANTINE: Duration = Duration::from_secs(40);

/// The heartbeats of kubelets: only when each was renewed.
struct NodeLeases;

impl Source for NodeLeases {
    type Object = Lease;
    type View = Option<Timestamp>;
    fn project(lease: Lease) -> Option<Timestamp> {
        lease.spec.and_then(|spec| spec.renew_time).map(|time| time.0)
    }
    fn config() -> InformerConfig {
        InformerConfig::all("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")
    }
}

/// When each node last gave a sign of life, by this process's clock: clocks of nodes are not compared.
type Signs = Arc<Mutex<HashMap<String, Instant>>>;

fn sign(signs: &Signs, node: &str) {
    signs.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), Instant::now());
}

pub(crate) fn start(context: &Context) {
    let (nodes, pods) = (context.hub.informer::<Nodes>(), context.hub.informer::<Pods>());
    let leases = context.hub.informer::<NodeLeases>();
    let (queue, signs) = (context.queue(), Signs::default());
    let (wake, alive) = (queue.clone(), signs.clone());
    nodes.subscribe(move |change| {
        let Some(node) = change.latest() else { return };
        if change.new.is_none() {
            alive.lock().unwrap_or_else(PoisonError::into_inner).remove(&node.key.name);
        } else if change.old.as_ref().is_none_or(|old| heartbeat(old) != heartbeat(node)) {
            sign(&alive, &node.key.name);
        }
        wake.add(node.key.clone());
    });
    let (alive, known, wake) = (signs.clone(), nodes.clone(), queue.clone());
    leases.subscribe(move |change| {
        let Some(lease) = &change.new else { return };
        if change.old.as_ref().is_none_or(|old| old.view != lease.view) {
            sign(&alive, &lease.key.name);
            // Renewals are frequent and need no work, except for the first after silence.
            if known.get("", &lease.key.name).is_some_and(|node| !is_ready(&node)) {
                wake.add(ObjectKey::new("", &lease.key.name));
            }
        }
    });
    let wake = queue.clone();
    pods.subscribe(move |change| {
        let Some(pod) = change.new.as_ref().filter(|pod| !pod.node.is_empty()) else { return };
        let moved = change
            .old
            .as_ref()
            .is_none_or(|old| old.node != pod.node || old.ready != pod.ready || old.tolerations != pod.tolerations);
        if moved {
            wake.add(ObjectKey::new("", &pod.node));
        }
    });
    let writer = Arc::new(context.writer("node-controller").track(NODES, &nodes).track(PODS, &pods));
    let caches = (nodes.clone(), pods.clone(), leases);
    let ready = async move {
        caches.0.synced().await;
        caches.1.synced().await;
        caches.2.synced().await;
    };
    let grace = context.config.node_monitor_grace;
    let pending: Arc<Mutex<HashMap<String, Pending>>> = Arc::default();
    context.work(NAME, &queue, ready, move |key| {
        let mut leaving = pending.lock().unwrap_or_else(PoisonError::into_inner);
        let node = nodes.get_key(&key);
        if node.is_none() {
            leaving.remove(&key.name);
        }
        let plan = node.map(|node| {
            let leaving = leaving.entry(key.name.clone()).or_default();
            let last = signs.lock().unwrap_or_else(PoisonError::into_inner).get(&key.name).copied();
            let silent = last.map_or(Duration::ZERO, |last| last.elapsed());
            plan(&node, &on_node(&pods, &key.name), leaving, silent, grace, seconds(Timestamp::now()).0)
        });
        drop(leaving);
        let writer = writer.clone();
        async move {
            let Some(plan) = plan else { return Ok(None) };
            writer.apply(&plan).await?;
            Ok(plan.requeue_after)
        }
    });
}

/// The status as the kubelet last reported it.
fn heartbeat(node: &Node) -> Option<Timestamp> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    ready.last_heartbeat_time.as_ref().map(|time| time.0)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn on_node(pods: &Informer<Arc<PodView>>, node: &str) -> Vec<Arc<PodView>> {
    pods.by_index(BY_NODE, node).iter().map(|pod| pod.view.clone()).collect()
}

/// All pods are one key: what is surplus depends on all of them.
pub(crate) fn start_collector(context: &Context) {
    let (nodes, pods) = (context.hub.informer::<Nodes>(), context.hub.informer::<Pods>());
    let queue = context.queue();
    let wake = queue.clone();
    nodes.subscribe(move |change| {
        if change.new.as_ref().is_none_or(|node| is_out_of_service(node)) {
            wake.add(ObjectKey::default());
        }
    });
    let (wake, known) = (queue.clone(), nodes.clone());
    pods.subscribe(move |change| {
        let Some(pod) = &change.new else { return };
        let node = known.get("", &pod.node);
        let homeless = !pod.node.is_empty() && node.is_none();
        let lost = pod.deletion.is_some() && node.is_some_and(|node| is_out_of_service(&node));
        if homeless || lost || pod.is_finished() || (pod.node.is_empty() && pod.deletion.is_some()) {
            wake.add_after(ObjectKey::default(), Duration::from_millis(100));
        }
    });
    let writer = Arc::new(context.writer(COLLECTOR).track(PODS, &pods));
    let caches = (nodes.clone(), pods.clone());
    let ready = async move {
        caches.0.synced().await;
        caches.1.synced().await;
    };
    let missing: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let (finished_max, client) = (context.config.finished_pods_max, context.hub.client().clone());
    context.work(COLLECTOR, &queue, ready, move |_| {
        let all: Vec<Arc<PodView>> = pods.list().iter().map(|pod| pod.view.clone()).collect();
        let (overdue, waiting) = overdue(&missing, &nodes, &all);
        let out = nodes.list().into_iter().filter(|node| is_out_of_service(node));
        let out: Vec<String> = out.map(|node| node.key.name.clone()).collect();
        let (writer, client) = (writer.clone(), client.clone());
        async move {
            let api: kube::Api<Node> = kube::Api::all(client);
            let mut absent = Vec::new();
            for node in overdue {
                // The cache may lag; only the API's own word lets pods be removed by force.
                match api.get_metadata(&node).await {
                    Ok(_) => {}
                    Err(error) if error.is_not_found() => absent.push(node),
                    Err(error) => return Err(error.into()),
                }
            }
            writer.apply(&collect_pods(&all, &absent, &out, finished_max, seconds(Timestamp::now()).0)).await?;
            Ok(waiting.then_some(QUARANTINE / 4))
        }
    });
}

/// Nodes that pods name but that have been missing for the quarantine, and whether others are still in it.
fn overdue(
    missing: &Mutex<HashMap<String, Instant>>,
    nodes: &Informer<Arc<Node>>,
    pods: &[Arc<PodView>],
) -> (Vec<String>, bool) {
    let mut missing = missing.lock().unwrap_or_else(PoisonError::into_inner);
    let homeless = |node: &str| !node.is_empty() && nodes.get("", node).is_none();
    let named: std::collections::HashSet<&str> =
        pods.iter().map(|pod| pod.node.as_str()).filter(|node| homeless(node)).collect();
    missing.retain(|node, _| named.contains(node.as_str()));
    for node in named {
        missing.entry(node.to_owned()).or_insert_with(Instant::now);
    }
    let overdue: Vec<String> =
        missing.iter().filter(|(_, since)| since.elapsed() >= QUARANTINE).map(|(node, _)| node.clone()).collect();
    let waiting = overdue.len() < missing.len();
    (overdue, waiting)
}

//! Watches what the node runs out of: removes images, ends pods, and says so in the node's conditions.

use crate::image_gc;
use crate::node::{Node, PodHandle};
use crate::usage::{ContainerSample, PodSample, Snapshot, storage};
use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use podsync::eviction::{self, ContainerUse, LastLow, Level, PodUse, Resource};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the node looks at itself.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long an evicted pod's resources are waited for before the next is chosen.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// How often that is looked at.
const GONE_LOOK_EVERY: Duration = Duration::from_millis(500);
/// Walks over volumes may be this old when they decide about a pod.
const STORAGE_AGE_MAX: SignedDuration = SignedDuration::from_secs(8);
/// Seconds that an evicted pod's containers get.
const EVICTION_GRACE_SECONDS: i64 = 1;

/// The end that the node has decided for a pod.
#[derive(Clone, Debug)]
pub struct Eviction {
    /// What the pod is told.
    pub message: String,
    /// Whether the node's need is the cause, and not the pod's own limit.
    pub disruption: bool,
    /// Seconds that its containers get.
    pub grace: i64,
}

/// Looks every [`LOOK_EVERY`] until `stop`.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    let mut last_low = LastLow::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let Some(evicted) = look(&node, &mut last_low).await else { continue };
        let gone = async {
            while !evicted.iter().all(|handle| handle.ended.load(Ordering::Acquire)) {
                tokio::time::sleep(GONE_LOOK_EVERY).await;
            }
        };
        let _ = tokio::time::timeout(GONE_WITHIN, gone).await;
    }
}

/// One look; the pods that have to go because of it.
async fn look(node: &Arc<Node>, last_low: &mut LastLow) -> Option<Vec<Arc<PodHandle>>> {
    let levels = levels(node);
    let standing = eviction::conditions(last_low, &levels, Timestamp::now());
    tell(node, standing);
    let handles: Vec<Arc<PodHandle>> = node.registry.all().into_iter().filter(|handle| is_active(handle)).collect();
    let limited: Vec<Arc<PodHandle>> =
        handles.iter().filter(|handle| eviction::has_storage_limit(&handle.pod.borrow())).cloned().collect();
    if !limited.is_empty() {
        let evicted = over_limit(node, &limited).await;
        if !evicted.is_empty() {
            return Some(evicted);
        }
    }
    let low = levels.into_iter().find(Level::is_low)?;
    let name = low.resource.as_str();
    node_event(node, EventKind::Warning, "EvictionThresholdMet", format!("Attempting to reclaim {name}"));
    if matches!(low.resource, Resource::Storage | Resource::Inodes) {
        image_gc::remove_unused(node, u64::MAX).await;
        let now = self::levels(node);
        if !now.iter().any(|level| level.resource == low.resource && level.is_low()) {
            return None;
        }
    }
    let uses = uses(node, &handles).await;
    let pods: Vec<Arc<Pod>> = handles.iter().map(|handle| handle.pod.borrow().clone()).collect();
    let pairs: Vec<(&Pod, &PodUse)> = pods.iter().map(|pod| &**pod).zip(&uses).collect();
    let Some(at) = eviction::victim(&low, &pairs) else {
        tracing::warn!("the node is low on {name} and has no pod that may be evicted");
        return None;
    };
    let message = eviction::message(&low, pairs[at].0, pairs[at].1);
    evict(node, &handles[at], message, true);
    Some(vec![handles[at].clone()])
}

fn is_active(handle: &PodHandle) -> bool {
    let gone = handle.ended.load(Ordering::Acquire) || handle.vanished.load(Ordering::Acquire);
    let decided = handle.eviction.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    let pod = handle.pod.borrow();
    let finished =
        pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(|p| p == "Failed" || p == "Succeeded");
    !gone && !decided && !finished
}

/// What is left of everything that the node watches, memory first.
fn levels(node: &Node) -> Vec<Level> {
    let limits = &node.config.pressure;
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let disk = storage::file_system(&node.config.root_dir);
    let percent = |of: u64, percent: u8| number(of / 100 * u64::from(percent));
    let mut levels = vec![
        Level {
            resource: Resource::Memory,
            available: available_memory(),
            threshold: number(limits.memory_available_bytes_min),
        },
        Level {
            resource: Resource::Storage,
            available: number(disk.available),
            threshold: percent(disk.capacity, limits.disk_available_percent_min)
                .min(number(limits.disk_available_bytes_enough)),
        },
    ];
    // some file systems make inodes as they need them and say that they have none
    if disk.inodes > 0 {
        levels.push(Level {
            resource: Resource::Inodes,
            available: number(disk.inodes_free),
            threshold: percent(disk.inodes, limits.inodes_free_percent_min),
        });
    }
    if let Some((most, used)) = processes() {
        levels.push(Level {
            resource: Resource::Processes,
            available: most - used,
            threshold: number(limits.processes_free_min),
        });
    }
    levels
}

/// Memory that can be had without swapping.
fn available_memory() -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib: Option<i64> = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok());
    kib.map_or(i64::MAX, |k| k * 1024)
}

/// Process ids that there are, and those in use.
fn processes() -> Option<(i64, i64)> {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
    let most = number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max").unwrap_or(i64::MAX));
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let used = load.split(' ').nth(3)?.split('/').nth(1)?.parse().ok()?;
    Some((most, used))
}

/// Conditions that have changed go to the node's status at once.
fn tell(node: &Node, standing: Vec<&'static str>) {
    let mut told = node.pressures.lock().unwrap_or_else(PoisonError::into_inner);
    if *told != standing {
        *told = standing;
        node.status_news.notify_one();
    }
}

/// Pods that exceed their own limits go, all of them.
async fn over_limit(node: &Arc<Node>, handles: &[Arc<PodHandle>]) -> Vec<Arc<PodHandle>> {
    let uses = uses(node, handles).await;
    let mut evicted = Vec::new();
    for (handle, of) in handles.iter().zip(&uses) {
        let pod = handle.pod.borrow().clone();
        if let Some(message) = eviction::over_own_limit(&pod, of)
            && !eviction::is_critical(&pod)
        {
            evict(node, handle, message, false);
            evicted.push(handle.clone());
        }
    }
    evicted
}

fn evict(node: &Node, handle: &PodHandle, message: String, disruption: bool) {
    let pod = handle.pod.borrow().clone();
    tracing::warn!(pod = ?pod.metadata.name, namespace = ?pod.metadata.namespace, "evicting: {message}");
    node.event(&pod, None, EventKind::Warning, "Evicted", message.clone());
    let eviction = Eviction { message, disruption, grace: EVICTION_GRACE_SECONDS };
    *handle.eviction.lock().unwrap_or_else(PoisonError::into_inner) = Some(eviction);
    handle.wake.notify_one();
}

/// An event about the Node object.
pub fn node_event(node: &Node, kind: EventKind, reason: &str, message: String) {
    // events about nodes carry the name where others carry the uid, as upstream's do
    let name = Some(node.config.node_name.clone());
    let about =
        ObjectReference { kind: Some("Node".into()), name: name.clone(), uid: name, ..ObjectReference::default() };
    node.recorder.record(&about, kind, reason, message);
}

/// What each pod uses of everything. Walks and asks the runtime.
async fn uses(node: &Arc<Node>, handles: &[Arc<PodHandle>]) -> Vec<PodUse> {
    let layers = storage::layers(node).await;
    let (at, pods) = (node.clone(), handles.iter().map(|h| h.pod.borrow().clone()).collect::<Vec<Arc<Pod>>>());
    let read = tokio::task::spawn_blocking(move || {
        let snapshot = at.meter.snapshot(&at);
        pods.iter().map(|pod| pod_use(&at, pod, &snapshot, &layers)).collect()
    });
    read.await.unwrap_or_else(|_| vec![PodUse::default(); handles.len()])
}

fn pod_use(node: &Node, pod: &Pod, snapshot: &Snapshot, layers: &HashMap<String, storage::Tree>) -> PodUse {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let disk = node.meter.storage(node, pod, STORAGE_AGE_MAX);
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let sample: Option<&PodSample> = snapshot.pods.iter().find(|p| p.uid == uid);
    let containers = sample.map(|p| p.containers.as_slice()).unwrap_or_default();
    let mut total = disk.total();
    containers.iter().filter_map(|c| layers.get(&c.id)).for_each(|layer| total += *layer);
    let container = |c: &ContainerSample| {
        let layer = layers.get(&c.id).copied().unwrap_or_default().bytes;
        let logs = disk.logs.get(&c.name).copied().unwrap_or_default().bytes;
        let own = ContainerUse { memory: number(c.sample.usage.working_set_bytes), storage: number(layer + logs) };
        (c.name.clone(), own)
    };
    PodUse {
        memory: sample.map_or(0, |p| number(p.sample.usage.working_set_bytes)),
        storage: number(total.bytes),
        inodes: number(total.inodes),
        processes: sample.and_then(|p| p.sample.usage.processes).map_or(0, number),
        containers: containers.iter().map(container).collect(),
        volumes: disk.volumes.iter().map(|volume| (volume.name.clone(), number(volume.tree.bytes))).collect(),
    }
}

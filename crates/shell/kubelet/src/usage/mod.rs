//! What node, pods and containers use: one reading of the control groups at a time, shared by everybody who asks.
//!
//! A rate needs two readings, so one is taken every [`SAMPLE_EVERY`] without being asked; who asks in between gets a new one
//! if the last is older than [`FRESH_FOR`]. Many readers cost no more than one.

mod exposition;
mod metrics;
mod network;
pub mod storage;
mod summary;

use crate::cgroups::{self, Usage};
use crate::node::{Node, RunningContainer};
use crate::sandbox;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub use metrics::{Counters, ProbeKey, cadvisor, kubelet, probes, resource};
pub use summary::summary;

/// A reading is taken at least this often.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// A reading younger than this is given to the next who asks.
pub const FRESH_FOR: SignedDuration = SignedDuration::from_secs(5);
/// A rate over less time than this says little.
const WINDOW_MIN: SignedDuration = SignedDuration::from_secs(2);
/// What is younger than this and has no reading yet is measured from its start.
const FRESH_AGE_MAX: SignedDuration = SignedDuration::from_secs(60);

/// A reading and the speed that it gives together with the one before.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When it was read.
    pub at: Timestamp,
    /// What the kernel said.
    pub usage: Usage,
    /// CPU used per second, in billionths of a core; `None` until there are two readings.
    pub cpu_nano_cores: Option<u64>,
    /// The time over which that was measured.
    pub window: SignedDuration,
}

/// A container and what it uses.
#[derive(Clone, Debug)]
pub struct ContainerSample {
    /// Name in the pod.
    pub name: String,
    /// Runtime id.
    pub id: String,
    /// Image as the pod spells it.
    pub image: String,
    /// Start time.
    pub started: Timestamp,
    /// The reading.
    pub sample: Sample,
}

/// A pod and what it uses.
#[derive(Clone, Debug)]
pub struct PodSample {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Unique id.
    pub uid: String,
    /// Control group.
    pub group: String,
    /// When the kubelet took it on.
    pub started: Timestamp,
    /// A process in the pod's network namespace; `None` for pods on the node's network.
    pub network_process: Option<u32>,
    /// The reading of the whole pod.
    pub sample: Sample,
    /// Its running containers, by name.
    pub containers: Vec<ContainerSample>,
}

/// All readings of one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was begun.
    pub at: Timestamp,
    /// The machine; `None` where its control groups cannot be read.
    pub node: Option<Sample>,
    /// Pods with a control group, by namespace and name.
    pub pods: Vec<PodSample>,
}

/// What the API server needs for `metrics.k8s.io`: CPU in billionths of a core, working set in bytes, window in seconds.
/// Only what has a rate is told.
pub fn short(snapshot: &Snapshot) -> Value {
    let one = |sample: &Sample| {
        let cpu = sample.cpu_nano_cores?;
        let window = sample.window.as_secs_f64();
        // times of the API are whole seconds
        let time = Timestamp::from_second(sample.at.as_second()).unwrap_or(sample.at).to_string();
        Some(json!({"time": time, "window": window, "cpu": cpu, "memory": sample.usage.working_set_bytes}))
    };
    let pod = |pod: &PodSample| {
        let containers: Option<BTreeMap<&str, Value>> =
            pod.containers.iter().map(|c| Some((c.name.as_str(), one(&c.sample)?))).collect();
        Some(json!({"namespace": pod.namespace, "name": pod.name, "containers": containers?}))
    };
    let pods: Vec<Value> = snapshot.pods.iter().filter(|p| !p.containers.is_empty()).filter_map(pod).collect();
    json!({"node": snapshot.node.as_ref().and_then(one), "pods": pods})
}

/// Keeps the last snapshot.
#[derive(Default)]
pub struct Meter {
    last: Mutex<Option<Arc<Snapshot>>>,
    storage: storage::Cache,
}

impl Meter {
    /// The figures as they are now: those of the last [`FRESH_FOR`], or new ones.
    pub fn snapshot(&self, node: &Node) -> Arc<Snapshot> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Timestamp::now();
        if let Some(snapshot) = last.as_ref().filter(|s| now.duration_since(s.at).abs() < FRESH_FOR) {
            return snapshot.clone();
        }
        let snapshot = Arc::new(read(node, last.as_deref(), now));
        *last = Some(snapshot.clone());
        snapshot
    }

    /// What the pod takes on the disk, walked again if the last walk is older than `age_max`. Blocks.
    pub fn storage(&self, node: &Node, pod: &Pod, age_max: SignedDuration) -> Arc<storage::PodStorage> {
        self.storage.pod(node, pod, age_max)
    }
}

/// Takes a reading every [`SAMPLE_EVERY`] until `stop`.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    loop {
        let at = node.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || drop(at.meter.snapshot(&at))).await {
            tracing::warn!("cannot read the use of this node: {error}");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SAMPLE_EVERY) => {}
        }
    }
}

/// A reading against the one before it, or against the start of a group that has been read for the first time.
fn sample(group: &str, before: Option<&Sample>, started: Option<Timestamp>) -> Option<Sample> {
    let usage = cgroups::usage(group)?;
    let at = Timestamp::now();
    Some(compare(at, usage, before, started))
}

fn compare(at: Timestamp, usage: Usage, before: Option<&Sample>, started: Option<Timestamp>) -> Sample {
    let (since, used) = match (before, started) {
        (Some(old), _) => (Some(old.at), usage.cpu_nanoseconds.saturating_sub(old.usage.cpu_nanoseconds)),
        (None, started) => (started.filter(|start| at.duration_since(*start) < FRESH_AGE_MAX), usage.cpu_nanoseconds),
    };
    let window = since.map(|since| at.duration_since(since)).filter(|window| *window >= WINDOW_MIN);
    let rate = window.and_then(|window| {
        let nanoseconds = u128::try_from(window.as_nanos()).ok()?;
        u64::try_from(u128::from(used) * 1_000_000_000 / nanoseconds).ok()
    });
    Sample { at, usage, cpu_nano_cores: rate, window: window.unwrap_or_default() }
}

fn read(node: &Node, before: Option<&Snapshot>, now: Timestamp) -> Snapshot {
    let pods_before: HashMap<&str, &PodSample> =
        before.iter().flat_map(|s| &s.pods).map(|pod| (pod.uid.as_str(), pod)).collect();
    let mut pods: Vec<PodSample> =
        node.registry.all().iter().filter_map(|handle| read_pod(node, handle, &pods_before, now)).collect();
    pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let machine = sample("", before.and_then(|s| s.node.as_ref()), None);
    Snapshot { at: now, node: machine, pods }
}

fn read_pod(
    node: &Node,
    handle: &crate::node::PodHandle,
    before: &HashMap<&str, &PodSample>,
    now: Timestamp,
) -> Option<PodSample> {
    let pod = handle.pod.borrow().clone();
    let (sandbox_id, running) = {
        let view = handle.view.lock().unwrap_or_else(PoisonError::into_inner);
        let running = view.containers.iter().filter(|(_, c)| c.running);
        let running: Vec<(String, RunningContainer)> = running.map(|(n, c)| (n.clone(), c.clone())).collect();
        (view.sandbox_id.clone()?, running)
    };
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let group = sandbox::cgroup_parent(node, &pod);
    let old = before.get(uid.as_str()).copied();
    let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(now, |t| t.0);
    let whole = sample(&group, old.map(|pod| &pod.sample), Some(started))?;
    let mut containers = Vec::new();
    for (name, container) in running {
        let started = container.started.unwrap_or(now);
        let known = old.and_then(|pod| pod.containers.iter().find(|c| c.id == container.id)).map(|c| &c.sample);
        let Some(sample) = sample(&format!("{group}/{}", container.id), known, Some(started)) else { continue };
        containers.push(ContainerSample { name, id: container.id, image: container.image, started, sample });
    }
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    let host_network = pod.spec.as_ref().is_some_and(podsync::is_host_network);
    Some(PodSample {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        network_process: (!host_network).then(|| cgroups::first_process(&format!("{group}/{sandbox_id}"))).flatten(),
        uid,
        group,
        started,
        sample: whole,
        containers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_readings_or_a_start() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let usage = |seconds: u64| Usage { cpu_nanoseconds: seconds * 1_000_000_000, ..Usage::default() };
        let first = compare(at(100), usage(40), None, None);
        assert_eq!((first.cpu_nano_cores, first.window), (None, SignedDuration::ZERO));
        let second = compare(at(110), usage(45), Some(&first), Some(at(0)));
        assert_eq!((second.cpu_nano_cores, second.window.as_secs()), (Some(500_000_000), 10));
        let fresh = compare(at(104), usage(1), None, Some(at(100)));
        assert_eq!(fresh.cpu_nano_cores, Some(250_000_000));
        assert_eq!(compare(at(101), usage(1), None, Some(at(100))).cpu_nano_cores, None, "too short to say");
        assert_eq!(compare(at(1000), usage(1), None, Some(at(100))).cpu_nano_cores, None, "the mean of a long life");
        let reset = compare(at(120), usage(1), Some(&second), None);
        assert_eq!(reset.cpu_nano_cores, Some(0), "a counter that went back is no speed");
    }
}

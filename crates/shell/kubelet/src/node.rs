//! What all parts of one kubelet share, and the handle by which its server finds running containers.

use crate::config::KubeletConfig;
use crate::image_gc::ImageAges;
use crate::images::Images;
use crate::machine::Machine;
use crate::objects::Objects;
use crate::pressure::Eviction;
use crate::runtime::Runtime;
use crate::tokens::Tokens;
use crate::usage::{Counters, Meter};
use crate::volumes::disk::Disks;
use client::{EventKind, Informer, Recorder};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use kube::Client;
use podsync::Grant;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, Semaphore, watch};

/// Sandboxes and containers started at the same time: more makes all of them slower.
pub const PARALLEL_STARTS_MAX: usize = 4;

/// What the server needs to know about one container.
#[derive(Clone, Debug)]
pub struct RunningContainer {
    /// Runtime id of the newest container of this name.
    pub id: String,
    /// Its log file.
    pub log_path: PathBuf,
    /// Log file of the container before it.
    pub previous_log_path: Option<PathBuf>,
    /// Whether it runs.
    pub running: bool,
    /// When it started.
    pub started: Option<Timestamp>,
    /// Its image as the pod spells it.
    pub image: String,
}

/// What the server needs to know about one pod.
#[derive(Clone, Debug, Default)]
pub struct PodView {
    /// Runtime id of the sandbox that is up.
    pub sandbox_id: Option<String>,
    /// Its addresses.
    pub ips: Vec<String>,
    /// Containers by name.
    pub containers: HashMap<String, RunningContainer>,
}

/// The mailbox of one pod's worker.
pub struct PodHandle {
    /// The pod as the API has it; `None` once it is gone there.
    pub pod: watch::Sender<Arc<Pod>>,
    /// The mirror pod of a static one.
    pub mirror: watch::Sender<Option<Arc<Pod>>>,
    /// Set when the pod has vanished from the API.
    pub vanished: AtomicBool,
    /// Set when the runtime has news.
    pub runtime_news: AtomicBool,
    /// Set when a ConfigMap or Secret of the pod has changed.
    pub objects_news: AtomicBool,
    /// Ids whose end was reported, with how often the runtime was found not to know it yet.
    pub exits: Mutex<HashMap<String, u32>>,
    /// Wakes the worker.
    pub wake: Notify,
    /// What the worker saw last.
    pub view: Mutex<PodView>,
    /// Set when the node has taken the pod, so that it counts against the node's room.
    pub admitted: AtomicBool,
    /// Set when the node has decided to end the pod.
    pub eviction: Mutex<Option<Eviction>>,
    /// What the node has granted to the pod, once it has taken it.
    pub grant: Mutex<Option<Arc<Grant>>>,
    /// Set while the pod asks for more than it was granted.
    pub asks_for_room: AtomicBool,
    /// Set when nothing of the pod lives any more.
    pub ended: AtomicBool,
}

impl PodHandle {
    /// A mailbox for a pod.
    pub fn new(pod: Arc<Pod>) -> PodHandle {
        PodHandle {
            pod: watch::Sender::new(pod),
            mirror: watch::Sender::new(None),
            vanished: AtomicBool::new(false),
            runtime_news: AtomicBool::new(true),
            objects_news: AtomicBool::new(false),
            exits: Mutex::default(),
            wake: Notify::new(),
            view: Mutex::default(),
            admitted: AtomicBool::new(false),
            eviction: Mutex::default(),
            grant: Mutex::default(),
            asks_for_room: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }
}

/// Mailboxes by pod uid, and which pod a runtime id belongs to.
#[derive(Default)]
pub struct Registry {
    /// Pods by uid.
    pub pods: Mutex<HashMap<String, Arc<PodHandle>>>,
    /// Pod uid by container or sandbox id.
    pub owners: Mutex<HashMap<String, String>>,
}

impl Registry {
    /// A pod's mailbox.
    pub fn get(&self, uid: &str) -> Option<Arc<PodHandle>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    /// All mailboxes.
    pub fn all(&self) -> Vec<Arc<PodHandle>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Remembers whose container this is.
    pub fn own(&self, id: &str, uid: &str) {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_string(), uid.to_string());
    }

    /// Forgets a pod and its ids.
    pub fn remove(&self, uid: &str) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, owner| owner != uid);
    }

    /// The runtime reports something about this id; `None` means about anything.
    pub fn runtime_news(&self, id: Option<&str>) {
        let handles: Vec<Arc<PodHandle>> = match id {
            Some(id) => {
                let uid = self.owners.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
                uid.and_then(|uid| self.get(&uid)).into_iter().collect()
            }
            None => self.all(),
        };
        for handle in handles {
            if let Some(id) = id {
                handle.exits.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_string(), 0);
            }
            handle.runtime_news.store(true, Ordering::Release);
            handle.wake.notify_one();
        }
    }

    /// Finds a pod by namespace and name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<PodHandle>> {
        self.all().into_iter().find(|handle| {
            let pod = handle.pod.borrow();
            pod.metadata.namespace.as_deref() == Some(namespace) && pod.metadata.name.as_deref() == Some(name)
        })
    }
}

/// One kubelet's shared state.
pub struct Node {
    /// Its configuration.
    pub config: KubeletConfig,
    /// The API.
    pub client: Client,
    /// The container runtime.
    pub runtime: Runtime,
    /// Pull state of images.
    pub images: Images,
    /// ConfigMaps and Secrets in use.
    pub objects: Objects,
    /// Service account tokens in use.
    pub tokens: Tokens,
    /// All Services, for link variables.
    pub services: Informer<Service>,
    /// Event recorder.
    pub recorder: Recorder,
    /// This machine.
    pub machine: Machine,
    /// When this kubelet started.
    pub started: Timestamp,
    /// Readings of what node and pods use.
    pub meter: Meter,
    /// What it has counted since then.
    pub counters: Counters,
    /// Pods of the manifests directory.
    pub static_pods: watch::Sender<Vec<Arc<Pod>>>,
    /// Pods of this node.
    pub registry: Arc<Registry>,
    /// The control groups above the pods, as last written.
    pub cgroup_tree: Mutex<Option<crate::cgroups::Tree>>,
    /// Conditions of pressure that stand.
    pub pressures: Mutex<Vec<&'static str>>,
    /// When images were last used.
    pub image_ages: Mutex<ImageAges>,
    /// Held while the node decides whether it takes a pod.
    pub admission: Mutex<()>,
    /// Disks that are volumes of this node.
    pub disks: Arc<Disks>,
    /// Limits parallel starts.
    pub start_slots: Arc<Semaphore>,
    /// Wakes the node status writer.
    pub status_news: Notify,
    /// Waits for the rules of all nodes before a pod ends; unset where no service proxy runs.
    pub withdrawal: std::sync::OnceLock<crate::withdrawal::Withdrawal>,
    /// What other parts of the node add to the metrics page.
    pub more_metrics: std::sync::OnceLock<Box<dyn Fn() -> String + Send + Sync>>,
}

impl Node {
    /// The node's addresses as text.
    pub fn host_ips(&self) -> Vec<String> {
        self.config.node_ips.iter().map(ToString::to_string).collect()
    }

    /// Records an event about a pod, or about one of its containers.
    pub fn event(&self, pod: &Pod, container: Option<(&str, bool)>, kind: EventKind, reason: &str, message: String) {
        let field_path = container.map(|(name, init)| {
            let debugs = pod.spec.as_ref().and_then(|s| s.ephemeral_containers.as_ref());
            let list = match init {
                true => "initContainers",
                false if debugs.is_some_and(|list| list.iter().any(|c| c.name == name)) => "ephemeralContainers",
                false => "containers",
            };
            format!("spec.{list}{{{name}}}")
        });
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path,
        };
        self.recorder.record(&about, kind, reason, message);
    }

    /// Link variables that the pod's containers get: the API server's always, its namespace's unless it opts out.
    pub fn service_variables(&self, pod: &Pod) -> Vec<(String, String)> {
        let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut out = Vec::new();
        for cached in self.services.list() {
            let (ns, name) = (cached.key.namespace.as_str(), cached.key.name.as_str());
            let master = ns == "default" && name == "kubernetes";
            if master || (links && ns == namespace) {
                out.extend(crate::env::service_link(&cached.view));
            }
        }
        out
    }
}

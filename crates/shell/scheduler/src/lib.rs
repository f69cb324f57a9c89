//! Watch, place, bind: the shell around core/placement.
//!
//! Restart-safe because all state comes from watches: a pod that is bound in the API holds its node, one that is not
//! waits in the queue. A pod whose binding is under way counts as placed (assumed) until the watch shows the outcome.

mod apply;
mod queue;
pub mod state;
mod volumes;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::{Hub, Informer, InformerConfig, ObjectKey, Recorder};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use placement::volumes::{ClaimInfo, ClassInfo, VolumeInfo};
use placement::{Budget, NodeSpec, PodInfo};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::apply::Writer;
pub use self::apply::{Bound, Refusal, Refused};
use self::state::{State, StorageNews};
use self::volumes::VolumeBinder;

/// Pods placed before the loop looks at events again.
const PLACED_AT_ONCE_MAX: usize = 64;
/// Refusals (event and condition) being written at once.
const REFUSALS_MAX: usize = 32;
const IDLE_MAX: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Pods with this `spec.schedulerName` are ours.
    pub name: String,
    /// Bindings under way at once.
    pub binds_max: usize,
    /// Start of the sequence that decides among equally good nodes.
    pub seed: u64,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self { name: "default-scheduler".to_owned(), binds_max: 64, seed: 0 }
    }
}

struct Pods;
struct Nodes;
struct Namespaces;
struct Budgets;
struct Claims;
struct Volumes;
struct Classes;
struct Limits;

impl client::Source for Pods {
    type Object = Pod;
    type View = PodInfo;
    fn project(pod: Pod) -> PodInfo {
        PodInfo::new(pod)
    }
    fn config() -> InformerConfig {
        InformerConfig::all("/api/v1/pods").fields("status.phase!=Succeeded,status.phase!=Failed")
    }
}

impl client::Source for Nodes {
    type Object = Node;
    type View = Arc<NodeSpec>;
    fn project(node: Node) -> Arc<NodeSpec> {
        Arc::new(NodeSpec::new(node))
    }
}

impl client::Source for Namespaces {
    type Object = Namespace;
    type View = BTreeMap<String, String>;
    fn project(namespace: Namespace) -> BTreeMap<String, String> {
        namespace.metadata.labels.unwrap_or_default()
    }
}

impl client::Source for Budgets {
    type Object = PodDisruptionBudget;
    type View = Budget;
    fn project(budget: PodDisruptionBudget) -> Budget {
        Budget::new(&budget)
    }
}

impl client::Source for Claims {
    type Object = PersistentVolumeClaim;
    type View = Arc<ClaimInfo>;
    fn project(claim: PersistentVolumeClaim) -> Arc<ClaimInfo> {
        Arc::new(ClaimInfo::new(&claim))
    }
}

impl client::Source for Volumes {
    type Object = PersistentVolume;
    type View = Arc<VolumeInfo>;
    fn project(volume: PersistentVolume) -> Arc<VolumeInfo> {
        Arc::new(VolumeInfo::new(&volume))
    }
}

impl client::Source for Classes {
    type Object = StorageClass;
    type View = Arc<ClassInfo>;
    fn project(class: StorageClass) -> Arc<ClassInfo> {
        Arc::new(ClassInfo::new(&class))
    }
}

impl client::Source for Limits {
    type Object = CSINode;
    type View = Arc<CSINode>;
    fn project(mut node: CSINode) -> Arc<CSINode> {
        node.metadata.managed_fields = None;
        Arc::new(node)
    }
}

/// The caches of everything about storage, and what changed in them.
struct Storage {
    claims: Informer<Arc<ClaimInfo>>,
    volumes: Informer<Arc<VolumeInfo>>,
    classes: Informer<Arc<ClassInfo>>,
    limits: Informer<Arc<CSINode>>,
    dirty: [Arc<Dirty>; 4],
    wake: Arc<Notify>,
}

impl Storage {
    async fn start(hub: &Hub) -> Self {
        let (claims, volumes) = (hub.informer::<Claims>(), hub.informer::<Volumes>());
        let (classes, limits) = (hub.informer::<Classes>(), hub.informer::<Limits>());
        tokio::join!(claims.synced(), volumes.synced(), classes.synced(), limits.synced());
        let wake = Arc::<Notify>::default();
        let dirty = [
            Dirty::follow_with(&claims, wake.clone()),
            Dirty::follow_with(&volumes, wake.clone()),
            Dirty::follow_with(&classes, wake.clone()),
            Dirty::follow_with(&limits, wake.clone()),
        ];
        Self { claims, volumes, classes, limits, dirty, wake }
    }

    fn observe(&self, state: &mut State) {
        let now = Instant::now();
        let [claims, volumes, classes, limits] = &self.dirty;
        for key in claims.take() {
            let claim = self.claims.get_key(&key).map(|claim| claim.view.clone());
            state.observe_storage(StorageNews::Claim(key, claim), now);
        }
        for key in volumes.take() {
            let volume = self.volumes.get_key(&key).map(|volume| volume.view.clone());
            state.observe_storage(StorageNews::Volume(key.name, volume), now);
        }
        for key in classes.take() {
            let class = self.classes.get_key(&key).map(|class| class.view.clone());
            state.observe_storage(StorageNews::Class(key.name, class), now);
        }
        for key in limits.take() {
            let node = self.limits.get_key(&key).map(|node| node.view.clone());
            state.observe_storage(StorageNews::Limits(key.name, node), now);
        }
    }
}

/// Keys that changed since the loop last looked; bounded by the number of objects.
#[derive(Default)]
struct Dirty {
    keys: Mutex<HashSet<ObjectKey>>,
    wake: Arc<Notify>,
}

impl Dirty {
    fn follow<V: Send + Sync + 'static>(informer: &Informer<V>) -> Arc<Self> {
        Self::follow_with(informer, Arc::default())
    }

    fn follow_with<V: Send + Sync + 'static>(informer: &Informer<V>, wake: Arc<Notify>) -> Arc<Self> {
        let dirty = Arc::new(Self { keys: Mutex::default(), wake });
        let marks = dirty.clone();
        informer.subscribe(move |change| {
            if let Some(object) = change.latest() {
                marks.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(object.key.clone());
                marks.wake.notify_one();
            }
        });
        dirty
    }

    fn take(&self) -> HashSet<ObjectKey> {
        std::mem::take(&mut self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Schedules until `stop`. Run one at a time per cluster (leader election is the caller's).
pub async fn run(config: SchedulerConfig, client: kube::Client, stop: CancellationToken) {
    let hub = Hub::new(client.clone(), stop.child_token());
    let (pods, nodes, namespaces) = (hub.informer::<Pods>(), hub.informer::<Nodes>(), hub.informer::<Namespaces>());
    let budgets = hub.informer::<Budgets>();
    tokio::select! {
        () = stop.cancelled() => return,
        () = async { tokio::join!(pods.synced(), nodes.synced(), namespaces.synced(), budgets.synced()); } => {}
    }
    let (dirty_pods, dirty_nodes) = (Dirty::follow(&pods), Dirty::follow(&nodes));
    let (dirty_namespaces, dirty_budgets) = (Dirty::follow(&namespaces), Dirty::follow(&budgets));
    let storage = tokio::select! {
        () = stop.cancelled() => return,
        storage = Storage::start(&hub) => storage,
    };
    let binder = VolumeBinder { client: client.clone(), claims: storage.claims.clone() };
    let writer = Writer { recorder: Recorder::new(client.clone(), &config.name, None), client };
    let mut state = State::new(config.name, config.seed);
    let mut binds: JoinSet<Bound> = JoinSet::new();
    // These may wait for minutes; they must not keep others from being bound.
    let mut slow_binds: JoinSet<Bound> = JoinSet::new();
    let mut refusals: JoinSet<Refused> = JoinSet::new();
    loop {
        for key in dirty_namespaces.take() {
            let namespace = namespaces.get_key(&key);
            state.observe_namespace(&key.name, namespace.as_deref().map(|namespace| &namespace.view), Instant::now());
        }
        // Budgets only matter to the next preemption: nobody is woken for them.
        for key in dirty_budgets.take() {
            state.observe_budget(&key, budgets.get_key(&key).as_deref().map(|budget| &budget.view));
        }
        for key in dirty_nodes.take() {
            let node = nodes.get_key(&key);
            state.observe_node(&key.name, node.as_deref().map(|node| &node.view), Instant::now());
        }
        storage.observe(&mut state);
        for key in dirty_pods.take() {
            state.observe_pod(&key, pods.get_key(&key), Instant::now());
        }
        let mut placed = 0;
        while placed < PLACED_AT_ONCE_MAX && binds.len() < config.binds_max && refusals.len() < REFUSALS_MAX {
            let Some(outcome) = state.place_next(Instant::now()) else { break };
            placed += 1;
            match outcome {
                state::Outcome::Bind(pod, node, plan) if plan.is_empty() => {
                    binds.spawn(writer.clone().bind(pod, node));
                }
                state::Outcome::Bind(pod, node, plan) => {
                    slow_binds.spawn(writer.clone().bind_with_volumes(binder.clone(), pod, node, plan));
                }
                state::Outcome::Refuse(pod, refusal) => drop(refusals.spawn(writer.clone().refuse(pod, refusal))),
            }
        }
        let may_place = state.has_active() && binds.len() < config.binds_max && refusals.len() < REFUSALS_MAX;
        let tick = state.next_tick().unwrap_or_else(|| Instant::now() + IDLE_MAX);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(bound) = binds.join_next() => match bound {
                Ok(bound) => state.bound(bound, Instant::now()),
                Err(error) => tracing::error!(%error, "a binding task panicked"),
            },
            Some(bound) = slow_binds.join_next() => match bound {
                Ok(bound) => state.bound(bound, Instant::now()),
                Err(error) => tracing::error!(%error, "a binding task panicked"),
            },
            Some(refused) = refusals.join_next() => match refused {
                Ok(refused) => state.refused(&refused, Instant::now()),
                Err(error) => tracing::error!(%error, "a refusing task panicked"),
            },
            () = dirty_pods.wake.notified() => {}
            () = dirty_nodes.wake.notified() => {}
            () = dirty_namespaces.wake.notified() => {}
            () = storage.wake.notified() => {}
            () = tokio::time::sleep_until(tick.into()) => {}
            () = tokio::task::yield_now(), if may_place => {}
        }
        state.tick(Instant::now());
    }
}

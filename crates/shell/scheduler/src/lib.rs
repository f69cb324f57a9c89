//! Watch, place, bind: the shell around core/placement.
//!
//! Restart-safe because all state comes from watches: a pod that is bound in the API holds its node, one that is not
//! waits in the queue. A pod whose binding is under way counts as placed (assumed) until the watch shows the outcome.

mod apply;
mod queue;
pub mod state;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::{Hub, Informer, InformerConfig, ObjectKey, Recorder};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use placement::{Budget, NodeSpec, PodInfo};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::apply::Writer;
pub use self::apply::{Bound, Refusal, Refused};
use self::state::State;

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

/// Keys that changed since the loop last looked; bounded by the number of objects.
#[derive(Default)]
struct Dirty {
    keys: Mutex<HashSet<ObjectKey>>,
    wake: Notify,
}

impl Dirty {
    fn follow<V: Send + Sync + 'static>(informer: &Informer<V>) -> Arc<Self> {
        let dirty = Arc::new(Self::default());
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
    let writer = Writer { recorder: Recorder::new(client.clone(), &config.name, None), client };
    let mut state = State::new(config.name, config.seed);
    let mut binds: JoinSet<Bound> = JoinSet::new();
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
        for key in dirty_pods.take() {
            state.observe_pod(&key, pods.get_key(&key), Instant::now());
        }
        let mut placed = 0;
        while placed < PLACED_AT_ONCE_MAX && binds.len() < config.binds_max && refusals.len() < REFUSALS_MAX {
            let Some(outcome) = state.place_next(Instant::now()) else { break };
            placed += 1;
            match outcome {
                state::Outcome::Bind(pod, node) => drop(binds.spawn(writer.clone().bind(pod, node))),
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
            Some(refused) = refusals.join_next() => match refused {
                Ok(refused) => state.refused(&refused, Instant::now()),
                Err(error) => tracing::error!(%error, "a refusing task panicked"),
            },
            () = dirty_pods.wake.notified() => {}
            () = dirty_nodes.wake.notified() => {}
            () = dirty_namespaces.wake.notified() => {}
            () = tokio::time::sleep_until(tick.into()) => {}
            () = tokio::task::yield_now(), if may_place => {}
        }
        state.tick(Instant::now());
    }
}

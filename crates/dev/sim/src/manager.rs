//! The controller manager: plans of core/reconcile, made from lagging caches and written one write at a time.
//!
//! As the shell does it: a stage's own writes are waited for before the next plan of that key, a failed plan is tried
//! again later (and what may have happened without an answer is seen by then), a restart forgets all but what the API
//! holds.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ReplicaSet;
use reconcile::daemonset::FailedPods;
use reconcile::disruption::{Scale, needs_scale, scale_failed, selects};
use reconcile::job::backoff::Backoff;
use reconcile::job::{State, is_finished, orphans};
use reconcile::node_lifecycle::{Pending, collect_pods};
use reconcile::plan::{DAEMON_SETS, DEPLOYMENTS, Op, Plan, REPLICA_SETS, STATEFUL_SETS};
use reconcile::revisions::Revision;
use reconcile::{PodView, daemonset, deployment, disruption, node_lifecycle, replicaset, statefulset};

use crate::api::{Api, Fault, NAMESPACE};
use crate::cache::Caches;
use crate::faults::Faults;
use crate::object::Object;

pub const KINDS: [&str; 9] = [
    "Pod",
    "Node",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "ControllerRevision",
    "PodDisruptionBudget",
];
/// A node that is silent for so long is lost.
const GRACE: Duration = Duration::from_secs(40);
/// A node that is missing for so long loses its pods.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
const FINISHED_PODS_MAX: usize = 12_500;
const ROUNDS_MAX: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    JobOrphans,
    Budget,
    NodeLifecycle,
    PodCollector,
}

pub const ROLES: [Role; 9] = [
    Role::Deployment,
    Role::ReplicaSet,
    Role::StatefulSet,
    Role::DaemonSet,
    Role::Job,
    Role::JobOrphans,
    Role::Budget,
    Role::NodeLifecycle,
    Role::PodCollector,
];

impl Role {
    /// The kind whose objects are its keys; the pod collector has one key.
    fn kind(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::JobOrphans => "Pod",
            Self::Budget => "PodDisruptionBudget",
            Self::NodeLifecycle => "Node",
            Self::PodCollector => "",
        }
    }

    fn stages(self) -> usize {
        match self {
            Self::ReplicaSet | Self::Job => 2,
            Self::StatefulSet | Self::DaemonSet => 3,
            _ => 1,
        }
    }
}

/// A reconcile under way.
#[derive(Default)]
struct Work {
    key: String,
    stage: usize,
    rounds: usize,
    steps: VecDeque<Op>,
    written: Vec<(&'static str, usize)>,
    fault: Option<Fault>,
    lost: bool,
    backoff: Option<(String, Backoff)>,
}

#[derive(Default)]
pub struct Manager {
    pub caches: Caches,
    work: BTreeMap<Role, Work>,
    failed: FailedPods,
    backoffs: BTreeMap<String, (String, Backoff)>,
    pending: BTreeMap<String, Pending>,
    missing: BTreeMap<String, Timestamp>,
    started: Timestamp,
    /// When each node last gave a sign of life.
    pub signs: BTreeMap<String, Timestamp>,
}

impl Manager {
    /// A fresh process: lists everything, remembers nothing.
    pub fn start(api: &Api) -> Self {
        let mut manager = Self { caches: Caches::new(&KINDS), started: api.now, ..Self::default() };
        manager.caches.reach_all(api);
        manager
    }

    pub fn keys(&self, role: Role) -> Vec<String> {
        if role == Role::PodCollector { vec![String::new()] } else { self.caches.names(role.kind()) }
    }

    pub fn is_busy(&self, role: Role) -> bool {
        self.work.contains_key(&role)
    }

    pub fn begin(&mut self, role: Role, key: &str, api: &Api) {
        let mut work = Work { key: key.to_owned(), ..Work::default() };
        if self.load(role, &mut work, api) {
            self.work.insert(role, work);
        }
    }

    /// The next write of the reconcile under way; what it was, in words.
    pub fn step(&mut self, role: Role, api: &mut Api, faults: &mut Faults) -> Option<String> {
        let mut work = self.work.remove(&role)?;
        let mut said = None;
        if let Some(op) = work.steps.pop_front() {
            let result = faults.send(api, |api| api.write(&op));
            said = Some(format!("{role:?} {}: {} {result:?}", work.key, brief(&op)));
            work.written.push((op.resource().kind, api.revision()));
            if let Err(fault) = result {
                work.steps.clear();
                work.fault = Some(fault);
                work.lost |= fault == Fault::Lost;
                if fault == Fault::Exists {
                    self.name_taken(role, &work.key, &op, api);
                }
            }
        }
        if !work.steps.is_empty() || self.end_stage(role, &mut work, api) {
            self.work.insert(role, work);
        }
        said
    }

    /// Reads its own writes, then plans the next stage; false when the reconcile is over.
    fn end_stage(&mut self, role: Role, work: &mut Work, api: &Api) -> bool {
        for (kind, revision) in std::mem::take(&mut work.written) {
            if !work.lost {
                self.caches.reach(kind, api, revision);
            }
        }
        let fault = work.fault.take();
        if fault.is_none()
            && let Some(backoff) = work.backoff.take()
        {
            self.backoffs.insert(work.key.clone(), backoff);
        }
        work.rounds += 1;
        let records = matches!(role, Role::StatefulSet | Role::DaemonSet) && work.stage == 0;
        let again = role == Role::Job && fault.is_none() && work.rounds < ROUNDS_MAX;
        if !again {
            work.stage += 1;
        }
        if fault.is_some() && records || !self.load(role, work, api) {
            if work.lost {
                self.caches.reach_all(api);
            }
            return false;
        }
        true
    }

    /// Fills in the steps of the first stage that has any; false when none has.
    fn load(&mut self, role: Role, work: &mut Work, api: &Api) -> bool {
        while work.stage < role.stages() {
            let Some(plan) = self.plan(role, work, api) else { return false };
            work.steps = plan.steps.into_iter().chain(plan.batch).map(|step| step.op).collect();
            if !work.steps.is_empty() {
                return true;
            }
            (work.stage, work.rounds) = (work.stage + 1, 0);
        }
        false
    }

    fn plan(&mut self, role: Role, work: &mut Work, api: &Api) -> Option<Plan> {
        let now = api.now;
        if role == Role::PodCollector {
            return Some(self.collect(api));
        }
        let object = self.caches.get(role.kind(), &work.key)?.clone();
        match role {
            Role::Deployment => self.plan_deployment(&object, now),
            Role::ReplicaSet => self.plan_replica_set(&object, work.stage, now),
            Role::StatefulSet => {
                let (set, revisions, pods) = (object.stateful_set()?, self.revisions(&object), self.pods(&object));
                Some(match work.stage {
                    0 => statefulset::history(set, &revisions),
                    1 => statefulset::plan(set, &revisions, &pods, &[], now),
                    _ => statefulset::status(set, &revisions, &pods, now),
                })
            }
            Role::DaemonSet => {
                let (set, revisions, pods) = (object.daemon_set()?, self.revisions(&object), self.pods(&object));
                let nodes: Vec<_> = self.caches.list("Node").filter_map(|node| node.node().cloned()).collect();
                Some(match work.stage {
                    0 => daemonset::history(set, &revisions, &pods),
                    1 => daemonset::plan(set, &revisions, &pods, &nodes, &mut self.failed, now),
                    _ => daemonset::status(set, &revisions, &pods, &nodes, now),
                })
            }
            Role::Job => self.plan_job(&object, work, now),
            Role::JobOrphans => {
                let pod = object.pod()?;
                let job_of = |name: &str| self.caches.get("Job", name).and_then(|job| job.job());
                let owner = pod.controller().map(|owner| owner.name.clone()).unwrap_or_default();
                if !orphans::is_suspect(pod, job_of(&owner)) {
                    return None;
                }
                let live = api.get("Job", &owner).and_then(|job| job.job());
                Some(orphans::plan(pod, live.map(|job| &**job)))
            }
            Role::Budget => self.plan_budget(&object, now),
            Role::NodeLifecycle => {
                let node = object.node()?;
                let sign = self.signs.get(&work.key).copied().unwrap_or(self.started).max(self.started);
                let silent = Duration::try_from(now.duration_since(sign)).unwrap_or_default();
                let pods: Vec<_> = self.caches.list("Pod").filter_map(|pod| pod.pod()).cloned().collect();
                let pods: Vec<_> = pods.into_iter().filter(|pod| pod.node == work.key).collect();
                let pending = self.pending.entry(work.key.clone()).or_default();
                Some(node_lifecycle::plan(node, &pods, pending, silent, GRACE, now))
            }
            Role::PodCollector => None,
        }
    }

    fn plan_deployment(&self, object: &Object, now: Timestamp) -> Option<Plan> {
        let belongs = |set: &&Arc<Object>| set.owner().is_none_or(|owner| owner == object.uid());
        let sets: Vec<&Arc<Object>> = self.caches.list("ReplicaSet").filter(belongs).collect();
        let of_sets = |pod: &&Arc<Object>| pod.owner().is_some_and(|owner| sets.iter().any(|set| set.uid() == owner));
        let pods: Vec<Arc<PodView>> =
            self.caches.list("Pod").filter(of_sets).filter_map(|pod| pod.pod().cloned()).collect();
        let sets: Vec<Arc<ReplicaSet>> = sets.into_iter().filter_map(|set| set.replica_set().cloned()).collect();
        Some(deployment::plan(object.deployment()?, &sets, &pods, now))
    }

    fn plan_replica_set(&self, object: &Object, stage: usize, now: Timestamp) -> Option<Plan> {
        let (set, pods) = (object.replica_set()?, self.pods(object));
        Some(match stage {
            0 => replicaset::plan(REPLICA_SETS, set, &pods, &HashMap::new(), now),
            _ => replicaset::status(REPLICA_SETS, set, &pods, None, now),
        })
    }

    fn plan_job(&self, object: &Object, work: &mut Work, now: Timestamp) -> Option<Plan> {
        let job = object.job().filter(|job| !is_finished(job))?;
        let pods = self.pods(object);
        let known = self.backoffs.get(&work.key).filter(|(uid, _)| uid == object.uid()).map(|(_, backoff)| *backoff);
        let state = State::new(job, job.spec.as_ref()?, &pods, known, now);
        let plan = if work.stage == 0 { state.manage() } else { state.track() };
        let counts = plan.steps.iter().any(|step| step.op.resource().kind == "Job");
        work.backoff = counts.then(|| (object.uid().to_owned(), state.backoff()));
        Some(plan)
    }

    fn plan_budget(&self, object: &Object, now: Timestamp) -> Option<Plan> {
        let budget = object.budget()?;
        let pods: Vec<Arc<PodView>> = self.caches.list("Pod").filter_map(|pod| pod.pod().cloned()).collect();
        let pods: Vec<Arc<PodView>> = pods.into_iter().filter(|pod| selects(budget, pod)).collect();
        let mut scale = Scale::default();
        for pod in pods.iter().filter(|_| needs_scale(budget)) {
            let set = pod.controller().and_then(|owner| self.caches.get("ReplicaSet", &owner.name));
            let Some(set) = set.and_then(|set| set.replica_set()) else {
                return Some(scale_failed(budget, "found no controllers", now));
            };
            let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            scale.controllers.insert(set.metadata.uid.clone().unwrap_or_default(), replicas);
        }
        Some(disruption::plan(budget, &pods, &scale, now))
    }

    fn collect(&mut self, api: &Api) -> Plan {
        let pods: Vec<Arc<PodView>> = self.caches.list("Pod").filter_map(|pod| pod.pod().cloned()).collect();
        let homeless = |node: &str| !node.is_empty() && self.caches.get("Node", node).is_none();
        let named: Vec<&str> = pods.iter().map(|pod| pod.node.as_str()).filter(|node| homeless(node)).collect();
        self.missing.retain(|node, _| named.contains(&node.as_str()));
        for node in named {
            self.missing.entry(node.to_owned()).or_insert(api.now);
        }
        let overdue = |since: &Timestamp| api.now.duration_since(*since) >= QUARANTINE;
        let absent = self.missing.iter().filter(|(node, since)| overdue(since) && api.get("Node", node).is_none());
        let absent: Vec<String> = absent.map(|(node, _)| node.clone()).collect();
        collect_pods(&pods, &absent, &[], FINISHED_PODS_MAX, api.now)
    }

    /// Pods that the object owns, and those that nobody controls.
    fn pods(&self, owner: &Object) -> Vec<Arc<PodView>> {
        let belongs = |pod: &&Arc<Object>| pod.owner().is_none_or(|uid| uid == owner.uid());
        self.caches.list("Pod").filter(belongs).filter_map(|pod| pod.pod().cloned()).collect()
    }

    fn revisions(&self, owner: &Object) -> Vec<Revision> {
        let belongs = |revision: &&Arc<Object>| revision.owner().is_none_or(|uid| uid == owner.uid());
        self.caches.list("ControllerRevision").filter(belongs).filter_map(|found| found.revision().cloned()).collect()
    }

    /// The name of a new ReplicaSet or ControllerRevision is taken: by another template, the collision is counted.
    fn name_taken(&self, role: Role, key: &str, op: &Op, api: &mut Api) {
        let Op::Create { object, resource, .. } = op else { return };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let (Some(live), Some(owner)) = (api.get(resource.kind, name), self.caches.get(role.kind(), key)) else {
            return;
        };
        let (resource, status) = match (role, live.replica_set(), live.revision()) {
            (Role::Deployment, Some(live), _) => {
                (DEPLOYMENTS, owner.deployment().and_then(|owner| deployment::on_name_taken(owner, live)))
            }
            (Role::StatefulSet, _, Some(live)) => {
                (STATEFUL_SETS, owner.stateful_set().and_then(|owner| statefulset::on_name_taken(owner, live)))
            }
            (Role::DaemonSet, _, Some(live)) => {
                (DAEMON_SETS, owner.daemon_set().and_then(|owner| daemonset::on_name_taken(owner, live)))
            }
            _ => return,
        };
        if let Some(status) = status {
            // What fails here is tried again with the key.
            let _ = api.write(&Op::update_status(resource, NAMESPACE, key, status));
        }
    }
}

fn brief(op: &Op) -> String {
    let kind = op.resource().kind;
    match op {
        Op::Create { object, .. } => {
            let meta = &object["metadata"];
            let name = meta["name"].as_str().or(meta["generateName"].as_str()).unwrap_or_default();
            format!("create {kind} {name}")
        }
        Op::Delete { name, .. } => format!("delete {kind} {name}"),
        Op::Patch { name, body, .. } => format!("patch {kind} {name} {body}"),
    }
}

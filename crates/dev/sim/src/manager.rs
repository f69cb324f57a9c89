//! The controller manager: keys that changes and timers wake, plans made from lagging caches, written one write at a time.
//!
//! As the shell does it: a stage's own writes are waited for before the next plan of that key, a failed plan is tried
//! again later (and what may have happened without an answer is seen by then), a restart forgets all but what the API
//! holds.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use reconcile::daemonset::FailedPods;
use reconcile::job::backoff::Backoff;
use reconcile::node_lifecycle::Pending;
use reconcile::plan::{DAEMON_SETS, DEPLOYMENTS, Op, Plan, STATEFUL_SETS};
use reconcile::replicaset::Survey;
use reconcile::{daemonset, deployment, statefulset};

use crate::api::{Api, Event, Fault, NAMESPACE};
use crate::cache::Caches;
use crate::faults::Faults;
use crate::mutants::Mutant;
use crate::queue::Queue;
use crate::roles::{KINDS, PODS_BATCH, ROLES, Role, wakes};

/// Rounds of writes of one stage in one reconcile; what is left waits for the next.
const ROUNDS_MAX: usize = 6;

/// A reconcile under way.
#[derive(Default)]
pub struct Work {
    pub key: String,
    pub stage: usize,
    rounds: usize,
    steps: VecDeque<Op>,
    written: Vec<(&'static str, usize)>,
    fault: Option<Fault>,
    failed: bool,
    lost: bool,
    again: Option<Duration>,
    pub backoff: Option<(String, Backoff)>,
    /// How long what was admitted before a namespace's deletion may still arrive.
    pub arrivals: Option<Duration>,
    /// Of a ReplicaSet whose pods nothing was written to since.
    pub survey: Option<Survey>,
}

#[derive(Default)]
pub struct Manager {
    pub caches: Caches,
    queues: BTreeMap<Role, Queue>,
    work: BTreeMap<Role, Work>,
    pub failed: FailedPods,
    pub backoffs: BTreeMap<String, (String, Backoff)>,
    pub pending: BTreeMap<String, Pending>,
    pub missing: BTreeMap<String, Timestamp>,
    pub started: Timestamp,
    /// When each node last gave a sign of life.
    pub signs: BTreeMap<String, Timestamp>,
    /// How many reconciles each controller began.
    pub handled: BTreeMap<Role, usize>,
    pub mutant: Option<Mutant>,
}

impl Manager {
    /// A fresh process: lists everything, remembers nothing.
    pub fn start(api: &Api) -> Self {
        let mut manager = Self { caches: Caches::new(&KINDS), started: api.now, mutant: api.mutant, ..Self::default() };
        manager.see_all(api);
        manager
    }

    pub fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Sees the next event of a kind.
    pub fn see(&mut self, kind: &'static str, api: &Api) {
        self.caches.advance(kind, api);
        self.wake(api.now);
    }

    /// Sees everything that happened.
    pub fn see_all(&mut self, api: &Api) {
        self.caches.reach_all(api);
        self.wake(api.now);
    }

    fn wake(&mut self, now: Timestamp) {
        for event in self.caches.take_fresh() {
            self.notice_node(&event, now);
            for (role, key, delay) in wakes(&event, &self.caches) {
                let deaf = role == Role::ReplicaSet && event.name.0 == "Pod" && self.has(Mutant::HearsNoPods);
                if !deaf {
                    self.queues.entry(role).or_default().add_after(&key, delay, now);
                }
            }
        }
    }

    /// A Node that is new is alive; of one that is gone nothing is kept.
    fn notice_node(&mut self, event: &Event, now: Timestamp) {
        if event.name.0 == "Node" && (event.old.is_none() || event.new.is_none()) {
            self.pending.remove(&event.name.1);
            self.signs.remove(&event.name.1);
            if event.new.is_some() {
                self.signs.insert(event.name.1.clone(), now);
            }
        }
    }

    /// A node renewed its Lease; that needs no work, except for the first after silence.
    pub fn hear(&mut self, node: &str, now: Timestamp) {
        self.signs.insert(node.to_owned(), now);
        if self.caches.get("Node", node).is_some_and(|node| !crate::nodes::is_ready(node)) {
            self.queues.entry(Role::NodeLifecycle).or_default().add(node);
        }
    }

    /// Somebody set the clock: schedules are looked at again.
    pub fn clock_was_set(&mut self) {
        for key in self.caches.names("CronJob") {
            self.queues.entry(Role::CronJob).or_default().add(&key);
        }
    }

    /// Wakes whoever waited for this time.
    pub fn tick(&mut self, now: Timestamp) {
        self.queues.values_mut().for_each(|queue| queue.tick(now));
    }

    /// The next time that a controller waits for; of those with endless timers when asked.
    pub fn next_timer(&self, endless: bool) -> Option<Timestamp> {
        let asked = self.queues.iter().filter(|(role, _)| endless || !role.has_endless_timers());
        asked.filter_map(|(_, queue)| queue.next()).min()
    }

    pub fn due(&self, role: Role) -> usize {
        self.queues.get(&role).map_or(0, Queue::due)
    }

    pub fn is_busy(&self, role: Role) -> bool {
        self.work.contains_key(&role)
    }

    pub fn is_idle(&self) -> bool {
        self.work.is_empty() && self.queues.values().all(|queue| queue.due() == 0)
    }

    /// Begins the reconcile of a key that is due.
    pub fn begin(&mut self, role: Role, choice: usize, api: &Api) {
        let Some(key) = self.queues.get_mut(&role).and_then(|queue| queue.take(choice)) else { return };
        *self.handled.entry(role).or_insert(0) += 1;
        let mut work = Work { key, ..Work::default() };
        if self.load(role, &mut work, api) {
            self.work.insert(role, work);
        } else {
            self.finish(role, work, api);
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
        } else {
            self.finish(role, work, api);
        }
        said
    }

    /// Reads its own writes, then plans the next stage; false when the reconcile is over.
    fn end_stage(&mut self, role: Role, work: &mut Work, api: &Api) -> bool {
        let forgets = match role {
            Role::ReplicaSet => self.has(Mutant::ForgetsItsWrites),
            Role::DaemonSet => self.has(Mutant::ForgetsItsDaemons) && work.stage == 1,
            _ => false,
        };
        for (kind, revision) in std::mem::take(&mut work.written) {
            if !work.lost && !forgets {
                self.caches.reach(kind, api, revision);
            }
        }
        self.wake(api.now);
        let fault = work.fault.take();
        work.failed |= fault.is_some();
        if let Some(backoff) = work.backoff.take().filter(|_| fault.is_none()) {
            self.backoffs.insert(work.key.clone(), backoff);
        }
        work.rounds += 1;
        let in_rounds = matches!(role, Role::Job | Role::CronJob) && fault.is_none();
        if !in_rounds || work.rounds >= ROUNDS_MAX {
            if in_rounds {
                work.again = Some(PODS_BATCH);
            }
            (work.stage, work.rounds) = (work.stage + 1, 0);
        }
        let records = matches!(role, Role::StatefulSet | Role::DaemonSet) && work.stage == 1;
        !(fault.is_some() && records) && self.load(role, work, api)
    }

    fn finish(&mut self, role: Role, work: Work, api: &Api) {
        if work.lost {
            self.see_all(api);
        }
        let queue = self.queues.entry(role).or_default();
        if work.failed {
            return queue.retry(&work.key, api.now);
        }
        queue.forget(&work.key);
        if let Some(after) = work.again {
            queue.add_after(&work.key, after, api.now);
        }
    }

    /// Fills in the steps of the first stage that has any; false when none has.
    fn load(&mut self, role: Role, work: &mut Work, api: &Api) -> bool {
        while work.stage < role.stages() {
            let Some(plan) = self.plan(role, work, api) else { return false };
            if waits(role, work.stage) {
                work.again = plan.requeue_after.into_iter().chain(work.again).min();
            }
            work.steps = writes(plan).collect();
            if !work.steps.is_empty() {
                return true;
            }
            (work.stage, work.rounds) = (work.stage + 1, 0);
        }
        false
    }

    /// At rest: the first key of which a plan still wants a write, so that somebody should have been woken.
    pub fn unfinished(&mut self, api: &Api) -> Option<String> {
        for role in ROLES {
            let keys = if role == Role::PodCollector { vec![String::new()] } else { self.caches.names(role.kind()) };
            for key in keys {
                let mut work = Work { key, ..Work::default() };
                if self.load(role, &mut work, api) {
                    let steps: Vec<String> = work.steps.iter().map(brief).collect();
                    return Some(format!("{role:?} {} was not woken for {}", work.key, steps.join(", ")));
                }
            }
        }
        None
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

/// The writes of a plan in their order.
pub fn writes(plan: Plan) -> impl Iterator<Item = Op> {
    plan.steps.into_iter().chain(plan.batch).map(|step| step.op)
}

/// Whether the shell waits for what the plan of this stage asks to wait for.
fn waits(role: Role, stage: usize) -> bool {
    match role {
        Role::ReplicaSet => stage == 1,
        Role::StatefulSet => stage == 2,
        Role::DaemonSet => stage > 0,
        Role::Job => stage == 0,
        _ => true,
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

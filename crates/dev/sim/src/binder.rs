//! The scheduler: the real one's memory and queue, fed by watches that lag, with its writes under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Cached, ObjectKey};
use jiff::{SignedDuration, Timestamp};
use placement::pod::PREEMPTED_REASON;
use placement::resources::Resources;
use placement::{NodeSpec, PodInfo};
use scheduler::state::{Outcome, State};
use scheduler::{Bound, Refusal, Refused};
use serde_json::{Value, json};

use crate::api::{Api, Fault, NAMESPACE};
use crate::faults::Faults;
use crate::mutants::Mutant;
use crate::object::{Object, View};
use crate::scenario::VIP_PRIORITY;

/// Bindings and refusals under way at most.
const WRITES_MAX: usize = 4;

type Waiting = Arc<Cached<PodInfo>>;

/// Something that is being written about a pod.
enum Task {
    Bind(Waiting, String),
    /// Nobody knows whether the binding happened: the pod is to be read.
    Reread(Waiting, String),
    Refuse(Waiting, VecDeque<Write>),
}

/// A write of a refusal; `Tell` may fail.
enum Write {
    Tell(Waiting, Value),
    Denominate(String, String),
    Mark(String, String, Value),
    Evict(String, String),
}

pub struct Binder {
    state: State,
    position: usize,
    tasks: Vec<Task>,
    /// Only differences of instants matter; this one stands for `epoch`.
    base: Instant,
    epoch: Timestamp,
    mutant: Option<Mutant>,
}

impl Binder {
    /// A fresh process, which lists everything.
    pub fn start(api: &Api, seed: u64) -> Self {
        let state = State::new("default-scheduler".to_owned(), seed);
        let (base, epoch, mutant) = (Instant::now(), api.now, api.mutant);
        let mut binder = Self { state, position: api.revision(), tasks: Vec::new(), base, epoch, mutant };
        for (kind, name, object) in api.all() {
            binder.take(kind, name, Some(object), api.now);
        }
        binder
    }

    fn instant(&self, now: Timestamp) -> Instant {
        self.base + Duration::try_from(now.duration_since(self.epoch)).unwrap_or_default()
    }

    fn cached(&self, object: &Object) -> Option<Waiting> {
        let View::Pod(_, info) = &object.view else { return None };
        let mut view = (**info).clone();
        if self.mutant == Some(Mutant::PreemptsAnybody) && view.node.is_some() {
            view.priority = -VIP_PRIORITY;
        }
        Some(Arc::new(Cached {
            key: ObjectKey::new(NAMESPACE, object.name()),
            uid: object.uid().to_owned(),
            resource_version: object.text("metadata/resourceVersion").to_owned(),
            deleting: object.is_deleting(),
            controller: None,
            view,
        }))
    }

    fn take(&mut self, kind: &str, name: &str, object: Option<&Arc<Object>>, now: Timestamp) {
        let now = self.instant(now);
        let key = ObjectKey::new(NAMESPACE, name);
        match (kind, object.map(|object| &object.view)) {
            ("Pod", _) => {
                let pod = object.and_then(|object| self.cached(object));
                self.state.observe_pod(&key, pod, now);
            }
            ("Node", Some(View::Node(_, spec))) if self.mutant == Some(Mutant::Overcommits) => {
                let mut allocatable = Resources::default();
                (0..10).for_each(|_| allocatable.add(&spec.allocatable));
                let spec = Arc::new(NodeSpec { allocatable, ..(**spec).clone() });
                self.state.observe_node(name, Some(&spec), now);
            }
            ("Node", Some(View::Node(_, spec))) => self.state.observe_node(name, Some(spec), now),
            ("Node", _) => self.state.observe_node(name, None, now),
            ("PodDisruptionBudget", Some(View::Budget(_, budget))) => self.state.observe_budget(&key, Some(budget)),
            ("PodDisruptionBudget", _) => self.state.observe_budget(&key, None),
            _ => {}
        }
    }

    /// Sees one event; false when there is none.
    pub fn observe(&mut self, api: &Api) -> bool {
        let Some(event) = api.events.get(self.position) else { return false };
        self.position += 1;
        self.take(event.name.0, &event.name.1, event.new.as_ref(), api.now);
        true
    }

    /// Decides about a pod, or makes a write that was decided; what it was, in words.
    pub fn step(&mut self, api: &mut Api, faults: &mut Faults) -> Option<String> {
        let now = self.instant(api.now);
        self.state.tick(now);
        if !self.tasks.is_empty() && (self.tasks.len() >= WRITES_MAX || faults.dice.once_in(2)) {
            let task = self.tasks.remove(faults.dice.below(self.tasks.len()));
            return Some(self.write(task, api, faults));
        }
        match self.state.place_next(now)? {
            // Simulated pods have no volumes that would have to be prepared.
            Outcome::Bind(pod, node, _) => {
                let said = format!("Scheduler {} to {node}", pod.key.name);
                self.tasks.push(Task::Bind(pod, node));
                Some(said)
            }
            Outcome::Refuse(pod, refusal) => {
                let said = format!("Scheduler {} waits: {}", pod.key.name, refusal.message);
                let writes = writes_of(&pod, &refusal, api.time());
                self.tasks.push(Task::Refuse(pod, writes));
                Some(said)
            }
        }
    }

    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// When it looks again at pods in backoff.
    pub fn next_timer(&self) -> Option<Timestamp> {
        let left = self.state.next_tick()?.duration_since(self.base);
        Some(self.epoch + SignedDuration::try_from(left).unwrap_or(SignedDuration::MAX))
    }

    fn write(&mut self, task: Task, api: &mut Api, faults: &mut Faults) -> String {
        match task {
            Task::Bind(pod, node) => {
                let result = faults.send(api, |api| api.bind(&pod.key.name, &pod.uid, &node));
                let said = format!("Binding {} to {node}: {result:?}", pod.key.name);
                let result = match (self.mutant, result) {
                    (Some(Mutant::BindsTwice), Ok(())) => Err(Fault::Conflict),
                    (Some(Mutant::BelievesInBindings), Err(Fault::Conflict)) => Ok(()),
                    (Some(Mutant::ForgetsItsBindings), Ok(())) => Err(Fault::Conflict),
                    (Some(Mutant::LosesBindings), Ok(())) if faults.dice.once_in(2) => Err(Fault::Conflict),
                    _ => result,
                };
                if result == Err(Fault::Lost) {
                    self.tasks.push(Task::Reread(pod, node));
                } else {
                    self.bound(&pod, node, result, api.now);
                }
                said
            }
            Task::Reread(pod, node) => {
                let live = api.get("Pod", &pod.key.name).filter(|live| live.uid() == pod.uid);
                let is_there = live.and_then(|live| live.pod()).is_some_and(|live| live.node == node);
                let said = format!("Scheduler finds {} {}", pod.key.name, if is_there { "bound" } else { "not bound" });
                self.bound(&pod, node, if is_there { Ok(()) } else { Err(Fault::Lost) }, api.now);
                said
            }
            Task::Refuse(pod, mut writes) => {
                let Some(write) = writes.pop_front() else {
                    return self.refused(&pod, false, api.now);
                };
                let (said, result) = send(&write, api, faults);
                if result.is_err() {
                    return said + &self.refused(&pod, true, api.now);
                }
                self.tasks.push(Task::Refuse(pod, writes));
                said
            }
        }
    }

    fn bound(&mut self, pod: &Cached<PodInfo>, node: String, result: Result<(), Fault>, now: Timestamp) {
        let error = |_: Fault| kube::Error::LinesCodecMaxLineLengthExceeded;
        let (key, uid, result) = (pod.key.clone(), pod.uid.clone(), result.map_err(error));
        self.state.bound(Bound { key, uid, node, result }, self.instant(now));
    }

    fn refused(&mut self, pod: &Cached<PodInfo>, failed: bool, now: Timestamp) -> String {
        let (key, uid) = (pod.key.clone(), pod.uid.clone());
        self.state.refused(&Refused { key, uid, failed }, self.instant(now));
        format!("Scheduler told {}", pod.key.name)
    }
}

/// The writes of a refusal, as the shell makes them.
fn writes_of(pod: &Waiting, refusal: &Refusal, now: Value) -> VecDeque<Write> {
    let node = refusal.preemption.as_ref().map(|preemption| preemption.node.as_str());
    let mut status = json!({});
    if pod.unschedulable_message.as_deref() != Some(&refusal.message) {
        status["conditions"] = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": refusal.message, "lastTransitionTime": now }]);
    }
    match node {
        Some(node) if pod.nominated.as_deref() != Some(node) => status["nominatedNodeName"] = node.into(),
        None if refusal.hopeless && pod.nominated.is_some() => status["nominatedNodeName"] = Value::Null,
        _ => {}
    }
    let mut writes = VecDeque::new();
    if status != json!({}) {
        writes.push_back(Write::Tell(pod.clone(), status));
    }
    let Some(preemption) = &refusal.preemption else { return writes };
    for other in &preemption.displaced {
        writes.push_back(Write::Denominate(other.name.clone(), other.uid.clone()));
    }
    for victim in preemption.victims.iter().filter(|victim| !victim.deleting) {
        let condition = json!([{ "type": "DisruptionTarget", "status": "True", "reason": PREEMPTED_REASON,
            "message": "preempted", "lastTransitionTime": now }]);
        writes.push_back(Write::Mark(victim.name.clone(), victim.uid.clone(), condition));
        writes.push_back(Write::Evict(victim.name.clone(), victim.uid.clone()));
    }
    writes
}

fn send(write: &Write, api: &mut Api, faults: &mut Faults) -> (String, Result<(), Fault>) {
    let patch = |api: &mut Api, name: &str, uid: &str, status: Value| {
        let body = json!({ "metadata": { "uid": uid }, "status": status });
        api.patch("Pod", name, true, true, &body)
    };
    // What is gone already, or replaced, needs no write.
    let gone = |result| match result {
        Err(Fault::Missing | Fault::Conflict) => Ok(()),
        other => other,
    };
    match write {
        Write::Tell(pod, status) => {
            let result = faults.send(api, |api| patch(api, &pod.key.name, &pod.uid, status.clone()));
            (format!("Scheduler tells {} {status}: {result:?}", pod.key.name), Ok(()))
        }
        Write::Denominate(name, uid) => {
            let result = faults.send(api, |api| gone(patch(api, name, uid, json!({ "nominatedNodeName": null }))));
            (format!("Scheduler takes the nomination of {name}: {result:?}"), result)
        }
        Write::Mark(name, uid, condition) => {
            let result = faults.send(api, |api| gone(patch(api, name, uid, json!({ "conditions": condition }))));
            (format!("Scheduler preempts {name}: {result:?}"), result)
        }
        Write::Evict(name, uid) => {
            let result = faults.send(api, |api| gone(api.delete("Pod", name, (Some(uid), None), None, "")));
            (format!("Scheduler evicts {name}: {result:?}"), result)
        }
    }
}

//! The API server of the simulation: an in-memory store with resourceVersions, compare-and-swap, graceful deletion,
//! finalizers, bindings and evictions.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use reconcile::plan::{JOBS, Op, PatchKind, merge};
use serde_json::{Value, json};

use crate::mutants::Mutant;
use crate::object::{Name, Object};
use crate::roles::CLUSTER_KINDS;

pub const NAMESPACE: &str = "a";
const GRACE_SECONDS: i64 = 30;

/// Why a write was refused, or what became of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Exists,
    Conflict,
    Missing,
    /// A disruption budget refused.
    Budget,
    /// A quota refused.
    Quota,
    /// The namespace is being deleted, or gone.
    Terminating,
    /// The write may have happened; nobody was told.
    Lost,
}

/// A committed write; its revision is its position plus one.
#[derive(Clone, Debug)]
pub struct Event {
    pub name: Name,
    pub old: Option<Arc<Object>>,
    pub new: Option<Arc<Object>>,
}

pub struct Api {
    /// Time that passes evenly: what timers go by.
    pub now: Timestamp,
    /// By how much the clock of the machines is ahead of it: somebody sets it.
    pub skew: SignedDuration,
    objects: BTreeMap<&'static str, BTreeMap<String, Arc<Object>>>,
    pub events: Vec<Event>,
    names: u64,
    /// What was admitted and is stored then.
    arriving: Vec<(Timestamp, &'static str, Value)>,
    /// The server stops after it charged a quota for the next object.
    pub stops: bool,
    /// What this server, and whoever works with it, does wrong.
    pub mutant: Option<Mutant>,
}

impl Default for Api {
    fn default() -> Self {
        let now = Timestamp::from_second(1_000_000).unwrap_or(Timestamp::UNIX_EPOCH);
        Self {
            now,
            skew: SignedDuration::ZERO,
            objects: BTreeMap::new(),
            events: Vec::new(),
            names: 0,
            arriving: Vec::new(),
            stops: false,
            mutant: None,
        }
    }
}

impl Api {
    pub fn revision(&self) -> usize {
        self.events.len()
    }

    pub fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub fn pass(&mut self, time: SignedDuration) {
        self.now += time;
        let now = self.now;
        let due: Vec<_> = self.arriving.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, kind, object) in due {
            // Nobody waits for the answer.
            let _ = self.store(kind, object);
        }
    }

    /// What the clocks show.
    pub fn wall(&self) -> Timestamp {
        self.now + self.skew
    }

    pub fn time(&self) -> Value {
        json!(self.wall().strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }

    pub fn get(&self, kind: &'static str, name: &str) -> Option<&Arc<Object>> {
        self.objects.get(kind)?.get(name)
    }

    pub fn list(&self, kind: &'static str) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.get(kind).into_iter().flat_map(BTreeMap::values)
    }

    /// Every object, with its kind and name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &String, &Arc<Object>)> {
        self.objects.iter().flat_map(|(kind, objects)| objects.iter().map(|(name, object)| (*kind, name, object)))
    }

    /// Applies a write of a plan.
    pub fn write(&mut self, op: &Op) -> Result<(), Fault> {
        let kind = op.resource().kind;
        match op {
            Op::Create { object, .. } => self.create(kind, object.clone()),
            Op::Patch { name, subresource, kind: patch, body, .. } => {
                self.patch(kind, name, *subresource == Some("status"), *patch == PatchKind::Strategic, body)
            }
            Op::Delete { name, uid, grace, resource, .. } => {
                let propagation = if *resource == JOBS { "Background" } else { "" };
                match self.delete(kind, name, (uid.as_deref(), None), *grace, propagation) {
                    Err(Fault::Missing | Fault::Conflict) if uid.is_some() => Ok(()),
                    other => other,
                }
            }
        }
    }

    pub fn create(&mut self, kind: &'static str, object: Value) -> Result<(), Fault> {
        self.admit(kind)?;
        if self.charge(kind, &object)? && self.stops {
            return Err(Fault::Lost);
        }
        self.store(kind, object)
    }

    /// As [`Self::create`], but the object is stored only after a while.
    pub fn create_slowly(&mut self, kind: &'static str, object: Value, delay: SignedDuration) -> Result<(), Fault> {
        self.admit(kind)?;
        self.charge(kind, &object)?;
        self.arriving.push((self.now + delay, kind, object));
        Ok(())
    }

    /// Nothing is created in a namespace that does not exist or is going away.
    fn admit(&self, kind: &'static str) -> Result<(), Fault> {
        let open = self.get("Namespace", NAMESPACE).is_some_and(|namespace| !namespace.is_deleting());
        if open || CLUSTER_KINDS.contains(&kind) { Ok(()) } else { Err(Fault::Terminating) }
    }

    fn store(&mut self, kind: &'static str, mut object: Value) -> Result<(), Fault> {
        self.names += 1;
        let meta = &mut object["metadata"];
        if meta["name"].is_null() {
            meta["name"] = format!("{}{:04}", meta["generateName"].as_str().unwrap_or_default(), self.names).into();
        }
        let name = meta["name"].as_str().unwrap_or_default().to_owned();
        if self.get(kind, &name).is_some() {
            return Err(Fault::Exists);
        }
        if !CLUSTER_KINDS.contains(&kind) {
            meta["namespace"] = NAMESPACE.into();
        }
        (meta["uid"], meta["creationTimestamp"]) = (format!("uid{}", self.names).into(), self.time());
        object["metadata"]["generation"] = 1.into();
        if kind == "Pod" {
            complete(&mut object);
        }
        self.commit((kind, name), Some(object));
        Ok(())
    }

    pub fn patch(
        &mut self,
        kind: &'static str,
        name: &str,
        status: bool,
        strategic: bool,
        body: &Value,
    ) -> Result<(), Fault> {
        let old = self.get(kind, name).ok_or(Fault::Missing)?.clone();
        let stale = |field: &str| {
            let wanted = &body["metadata"][field];
            !wanted.is_null() && *wanted != old.value["metadata"][field]
        };
        if stale("uid") || stale("resourceVersion") {
            return Err(Fault::Conflict);
        }
        let mut new = old.value.clone();
        for (field, part) in body.as_object().into_iter().flatten().filter(|(field, _)| (*field == "status") == status)
        {
            let mut part = part.clone();
            if strategic {
                strategic_lists(&mut new, field, &mut part);
            }
            merge(&mut new[field.as_str()], &part);
        }
        if !status && new["spec"] != old.value["spec"] {
            new["metadata"]["generation"] = (old.value["metadata"]["generation"].as_i64().unwrap_or(0) + 1).into();
        }
        self.commit((kind, name.to_owned()), Some(new));
        self.release(kind, name);
        Ok(())
    }

    /// `only` names the uid and resourceVersion that the object has to have.
    pub fn delete(
        &mut self,
        kind: &'static str,
        name: &str,
        only: (Option<&str>, Option<&str>),
        grace: Option<i64>,
        propagation: &str,
    ) -> Result<(), Fault> {
        let old = self.get(kind, name).ok_or(Fault::Missing)?.clone();
        let differs = |wanted: Option<&str>, path: &str| wanted.is_some_and(|wanted| wanted != old.text(path));
        if differs(only.0, "metadata/uid") || differs(only.1, "metadata/resourceVersion") {
            return Err(Fault::Conflict);
        }
        let is_over = old.pod().is_none_or(|pod| pod.node.is_empty() || pod.is_finished());
        let grace = if is_over { 0 } else { grace.unwrap_or(GRACE_SECONDS) };
        let mut new = old.value.clone();
        let meta = &mut new["metadata"];
        if meta["deletionTimestamp"].is_null() {
            meta["deletionTimestamp"] = self.time();
            meta["deletionGracePeriodSeconds"] = grace.into();
        } else if meta["deletionGracePeriodSeconds"].as_i64().is_some_and(|known| known > grace) {
            meta["deletionGracePeriodSeconds"] = grace.into();
        }
        if propagation == "Foreground" && !old.is_deleting() {
            let mut held = meta["finalizers"].as_array().cloned().unwrap_or_default();
            held.push("foregroundDeletion".into());
            meta["finalizers"] = held.into();
        }
        if new["metadata"]["deletionGracePeriodSeconds"] == 0 && is_free(&new) {
            self.commit((kind, name.to_owned()), None);
        } else {
            self.commit((kind, name.to_owned()), Some(new));
        }
        Ok(())
    }

    /// Assigns a pod to a node, once.
    pub fn bind(&mut self, name: &str, uid: &str, node: &str) -> Result<(), Fault> {
        let pod = self.get("Pod", name).ok_or(Fault::Missing)?;
        let is_bound = pod.pod().is_some_and(|pod| !pod.node.is_empty()) && !self.has(Mutant::BindsTwice);
        if pod.uid() != uid || pod.is_deleting() || is_bound {
            return Err(Fault::Conflict);
        }
        let mut new = pod.value.clone();
        new["spec"]["nodeName"] = node.into();
        let scheduled = json!({ "type": "PodScheduled", "status": "True", "lastTransitionTime": self.time() });
        let mut status = json!({ "conditions": [scheduled] });
        strategic_lists(&mut new, "status", &mut status);
        merge(&mut new["status"], &status);
        self.commit(("Pod", name.to_owned()), Some(new));
        Ok(())
    }

    /// Deletes a pod if its budget has a disruption left. The budget may be changed by the first half alone, as in a
    /// server that stops in between (`half`).
    pub fn evict(&mut self, name: &str, half: bool) -> Result<(), Fault> {
        let pod = self.get("Pod", name).ok_or(Fault::Missing)?.clone();
        let ready = pod.pod().is_some_and(|pod| pod.ready && pod.is_active());
        let selects = |budget: &&Arc<Object>| pod.pod().is_some_and(|pod| budget.selects(pod));
        let found = self.list("PodDisruptionBudget").find(selects).cloned();
        if let Some(budget) = found.filter(|_| ready) {
            let mut new = budget.value.clone();
            let status = &mut new["status"];
            let allowed = status["disruptionsAllowed"].as_i64().unwrap_or(0);
            let refused = status["observedGeneration"] != budget.value["metadata"]["generation"] || allowed < 1;
            if refused && !self.has(Mutant::EvictsAnyway) {
                return Err(Fault::Budget);
            }
            status["disruptionsAllowed"] = (allowed - 1).max(0).into();
            status["disruptedPods"][name] = self.time();
            self.commit(("PodDisruptionBudget", budget.name().to_owned()), Some(new));
        }
        if half { Err(Fault::Lost) } else { self.delete("Pod", name, (None, None), None, "") }
    }

    /// Removes what was told to go and is held by nobody any more.
    fn release(&mut self, kind: &'static str, name: &str) {
        let Some(object) = self.get(kind, name) else { return };
        let over = object.value["metadata"]["deletionGracePeriodSeconds"] == 0;
        if object.is_deleting() && over && is_free(&object.value) {
            self.commit((kind, name.to_owned()), None);
        }
    }

    fn commit(&mut self, name: Name, new: Option<Value>) {
        let old = self.get(name.0, &name.1).cloned();
        let new = match new {
            Some(value) if old.as_ref().is_some_and(|old| old.value == value) => return,
            Some(mut value) => {
                value["metadata"]["resourceVersion"] = (self.revision() + 1).to_string().into();
                Some(Arc::new(Object::new(name.0, value)))
            }
            None => None,
        };
        let objects = self.objects.entry(name.0).or_default();
        match &new {
            Some(object) => objects.insert(name.1.clone(), object.clone()),
            None => objects.remove(&name.1),
        };
        self.events.push(Event { name, old, new });
    }
}

fn is_free(object: &Value) -> bool {
    let none = |finalizers: &Value| finalizers.as_array().is_none_or(Vec::is_empty);
    none(&object["metadata"]["finalizers"]) && none(&object["spec"]["finalizers"])
}

/// What admission adds to a pod that matters here.
fn complete(pod: &mut Value) {
    pod["status"] = json!({ "phase": "Pending" });
    pod["spec"]["schedulerName"] = "default-scheduler".into();
    let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if !tolerations.iter().any(|known| known["key"] == key && known["effect"] == "NoExecute") {
            tolerations
                .push(json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 }));
        }
    }
    pod["spec"]["tolerations"] = tolerations.into();
}

/// Applies the parts of a strategic merge patch that are not as in a merge patch: conditions merge by their type, and
/// single finalizers go. `patch` is of one field of the object.
fn strategic_lists(object: &mut Value, field: &str, patch: &mut Value) {
    if let Some(gone) = patch.as_object_mut().and_then(|patch| patch.remove("$deleteFromPrimitiveList/finalizers"))
        && let Some(held) = object["metadata"]["finalizers"].as_array_mut()
    {
        held.retain(|finalizer| !gone.as_array().is_some_and(|gone| gone.contains(finalizer)));
    }
    let Some(conditions) = patch.get_mut("conditions").filter(|_| field == "status").map(Value::take) else { return };
    let mut known = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    for condition in conditions.as_array().into_iter().flatten() {
        match known.iter_mut().find(|old| old["type"] == condition["type"]) {
            Some(old) => merge(old, condition),
            None => known.push(condition.clone()),
        }
    }
    patch["conditions"] = known.into();
}

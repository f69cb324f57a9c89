//! The garbage collector: core/reconcile's graph, fed by watches that lag.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use reconcile::garbage::{Action, Graph, Member};
use serde::Deserialize;
use serde_json::Value;

use crate::api::{Api, Fault};
use crate::faults::Faults;
use crate::mutants::Mutant;
use crate::object::{Name, Object};
use crate::roles::KINDS;

#[derive(Default)]
pub struct Garbage {
    graph: Graph,
    position: usize,
    names: BTreeMap<String, Name>,
    wake: BTreeSet<String>,
}

fn member(object: &Object) -> Member {
    let meta = ObjectMeta::deserialize(&object.value["metadata"]).unwrap_or_default();
    Member::new(0, meta)
}

impl Garbage {
    /// A fresh process, which lists everything.
    pub fn start(api: &Api) -> Self {
        let mut garbage = Self { position: api.revision(), ..Self::default() };
        for (kind, name, object) in api.all() {
            garbage.names.insert(object.uid().to_owned(), (kind, name.clone()));
            garbage.wake.extend(garbage.graph.put(object.uid(), member(object)));
        }
        garbage
    }

    /// Sees one event; false when there is none.
    pub fn observe(&mut self, api: &Api) -> bool {
        let Some(event) = api.events.get(self.position) else { return false };
        self.position += 1;
        if let Some(old) = event.old.as_ref().filter(|old| event.new.as_ref().is_none_or(|new| new.uid() != old.uid()))
        {
            self.names.remove(old.uid());
            self.wake.extend(self.graph.remove(old.uid()));
        }
        if let Some(new) = &event.new {
            self.names.insert(new.uid().to_owned(), event.name.clone());
            self.wake.extend(self.graph.put(new.uid(), member(new)));
        }
        true
    }

    /// Decides about one object that was woken.
    pub fn step(&mut self, api: &mut Api, faults: &mut Faults) -> Option<String> {
        let uid = self.wake.pop_first()?;
        if api.has(Mutant::LeavesOrphans) {
            return None;
        }
        let mut verified = HashMap::new();
        loop {
            let action = self.graph.decide(&uid, &verified);
            let result = match &action {
                Action::Nothing => return None,
                Action::Verify(owners) => {
                    verified.extend(owners.iter().map(|owner| (owner.uid.clone(), exists(api, owner))));
                    continue;
                }
                Action::Patch(patches) => {
                    patches.iter().try_for_each(|(target, body)| self.patch(target, body, api, faults))
                }
                Action::Delete { propagation } => self.delete(&uid, propagation, api, faults),
                Action::DeleteDependents(dependents) => {
                    dependents.iter().try_for_each(|uid| self.delete(uid, "Foreground", api, faults))
                }
            };
            let name = self.names.get(&uid).map_or_else(String::new, |(kind, name)| format!("{kind} {name}"));
            if result.is_err() {
                self.wake.insert(uid);
            }
            return Some(format!("Garbage {name}: {action:?} {result:?}"));
        }
    }

    pub fn is_idle(&self) -> bool {
        self.wake.is_empty()
    }

    fn patch(&self, uid: &str, body: &Value, api: &mut Api, faults: &mut Faults) -> Result<(), Fault> {
        let Some((kind, name)) = self.names.get(uid) else { return Ok(()) };
        ignore_gone(faults.send(api, |api| api.patch(kind, name, false, false, body)))
    }

    fn delete(&self, uid: &str, propagation: &str, api: &mut Api, faults: &mut Faults) -> Result<(), Fault> {
        let (Some((kind, name)), Some(member)) = (self.names.get(uid), self.graph.get(uid)) else { return Ok(()) };
        let only = (Some(uid), Some(member.resource_version.as_str()));
        ignore_gone(faults.send(api, |api| api.delete(kind, name, only, None, propagation)))
    }
}

fn ignore_gone(result: Result<(), Fault>) -> Result<(), Fault> {
    if result == Err(Fault::Missing) { Ok(()) } else { result }
}

fn exists(api: &Api, owner: &OwnerReference) -> bool {
    let kind = KINDS.iter().find(|kind| **kind == owner.kind);
    kind.is_none_or(|kind| api.get(kind, &owner.name).is_some_and(|live| live.uid() == owner.uid))
}

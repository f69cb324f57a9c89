//! What a process has seen so far: per kind a cache that lags behind the store by any number of events, with the index
//! by owner that the shell's informers have.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{Api, Event};
use crate::object::Object;

#[derive(Default)]
struct Cache {
    position: usize,
    objects: BTreeMap<String, Arc<Object>>,
    /// Objects by the uid of the controlling owner; the empty uid has those that nobody controls.
    owned: BTreeMap<String, BTreeMap<String, Arc<Object>>>,
}

/// Who owns the object, as the index says it.
fn owner(object: &Object) -> &str {
    object.owner().unwrap_or_default()
}

impl Cache {
    fn take(&mut self, event: &Event) {
        let name = &event.name.1;
        let known = match &event.new {
            Some(object) => {
                self.owned.entry(owner(object).to_owned()).or_default().insert(name.clone(), object.clone());
                self.objects.insert(name.clone(), object.clone())
            }
            None => self.objects.remove(name),
        };
        let Some(known) = known.filter(|known| event.new.as_ref().map(|new| owner(new)) != Some(owner(known))) else {
            return;
        };
        if let Some(names) = self.owned.get_mut(owner(&known)) {
            names.remove(name);
            if names.is_empty() {
                self.owned.remove(owner(&known));
            }
        }
    }
}

/// The caches of one process.
#[derive(Default)]
pub struct Caches {
    kinds: BTreeMap<&'static str, Cache>,
    /// Events that the caches took and nobody was woken for yet.
    fresh: Vec<Event>,
}

impl Caches {
    pub fn new(kinds: &[&'static str]) -> Self {
        Self { kinds: kinds.iter().map(|kind| (*kind, Cache::default())).collect(), fresh: Vec::new() }
    }

    /// Sees the next event of a kind.
    pub fn advance(&mut self, kind: &'static str, api: &Api) {
        let Some(cache) = self.kinds.get(kind) else { return };
        let next = api.events.iter().skip(cache.position).position(|event| event.name.0 == kind);
        let revision = next.map_or(api.revision(), |next| cache.position + next + 1);
        self.reach(kind, api, revision);
    }

    /// Sees everything of a kind up to a revision.
    pub fn reach(&mut self, kind: &'static str, api: &Api, revision: usize) {
        let Some(cache) = self.kinds.get_mut(kind) else { return };
        while cache.position < revision.min(api.revision()) {
            let event = &api.events[cache.position];
            cache.position += 1;
            if event.name.0 == kind {
                cache.take(event);
                self.fresh.push(event.clone());
            }
        }
    }

    pub fn reach_all(&mut self, api: &Api) {
        let kinds: Vec<&'static str> = self.kinds.keys().copied().collect();
        for kind in kinds {
            self.reach(kind, api, api.revision());
        }
    }

    /// What was seen since the last call, in the order of each kind.
    pub fn take_fresh(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.fresh)
    }

    pub fn get(&self, kind: &str, name: &str) -> Option<&Arc<Object>> {
        self.kinds.get(kind)?.objects.get(name)
    }

    pub fn list(&self, kind: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.kinds.get(kind).into_iter().flat_map(|cache| cache.objects.values())
    }

    /// Objects that this uid controls; the empty uid stands for nobody.
    pub fn owned(&self, kind: &str, uid: &str) -> impl Iterator<Item = &Arc<Object>> {
        let owned = self.kinds.get(kind).and_then(|cache| cache.owned.get(uid));
        owned.into_iter().flat_map(BTreeMap::values)
    }

    pub fn names(&self, kind: &str) -> Vec<String> {
        self.kinds.get(kind).into_iter().flat_map(|cache| cache.objects.keys().cloned()).collect()
    }
}

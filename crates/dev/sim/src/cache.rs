//! What a process has seen so far: per kind a cache that lags behind the store by any number of events.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{Api, Event};
use crate::object::Object;

#[derive(Default)]
pub struct Cache {
    position: usize,
    objects: BTreeMap<String, Arc<Object>>,
}

impl Cache {
    /// Sees everything up to a revision.
    fn reach(&mut self, kind: &str, api: &Api, revision: usize) {
        while self.position < revision.min(api.revision()) {
            let event = &api.events[self.position];
            self.position += 1;
            if event.name.0 == kind {
                self.take(event);
            }
        }
    }

    /// Sees the next event of its kind.
    fn advance(&mut self, kind: &str, api: &Api) {
        let next = api.events.iter().skip(self.position).position(|event| event.name.0 == kind);
        let revision = next.map_or(api.revision(), |next| self.position + next + 1);
        self.reach(kind, api, revision);
    }

    fn take(&mut self, event: &Event) {
        match &event.new {
            Some(object) => self.objects.insert(event.name.1.clone(), object.clone()),
            None => self.objects.remove(&event.name.1),
        };
    }
}

/// The caches of one process.
#[derive(Default)]
pub struct Caches(BTreeMap<&'static str, Cache>);

impl Caches {
    pub fn new(kinds: &[&'static str]) -> Self {
        Self(kinds.iter().map(|kind| (*kind, Cache::default())).collect())
    }

    pub fn advance(&mut self, kind: &'static str, api: &Api) {
        if let Some(cache) = self.0.get_mut(kind) {
            cache.advance(kind, api);
        }
    }

    pub fn reach(&mut self, kind: &'static str, api: &Api, revision: usize) {
        if let Some(cache) = self.0.get_mut(kind) {
            cache.reach(kind, api, revision);
        }
    }

    pub fn reach_all(&mut self, api: &Api) {
        for (kind, cache) in &mut self.0 {
            cache.reach(kind, api, api.revision());
        }
    }

    pub fn get(&self, kind: &str, name: &str) -> Option<&Arc<Object>> {
        self.0.get(kind)?.objects.get(name)
    }

    pub fn list(&self, kind: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.0.get(kind).into_iter().flat_map(|cache| cache.objects.values())
    }

    pub fn names(&self, kind: &str) -> Vec<String> {
        self.0.get(kind).into_iter().flat_map(|cache| cache.objects.keys().cloned()).collect()
    }
}

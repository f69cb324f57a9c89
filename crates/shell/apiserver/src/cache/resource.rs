//! The cache of one resource: an ordered map with O(1) snapshots, a bounded ring of past events, and its watchers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use imbl::OrdMap;
use meta::{ApiResult, Status};
use tokio::sync::mpsc;

use super::watchers::{Delivery, WatcherId, Watchers};
use super::{Event, Filter, Object};
use crate::limits::{PAGE_SNAPSHOT_AGE_MAX, PAGE_SNAPSHOTS_MAX, RING_BYTES_MAX, RING_EVENTS_MAX};
use crate::registry::FieldReader;

pub type Objects = OrdMap<Arc<str>, Arc<Object>>;

/// All objects of a resource as they stood at one revision.
#[derive(Clone)]
pub struct Snapshot {
    pub objects: Objects,
    pub revision: u64,
}

pub struct ResourceCache {
    pub readers: ArcSwap<Vec<FieldReader>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: Objects,
    /// Revision of the last event of this resource.
    last: u64,
    ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    /// Every event above this revision is in the ring.
    ring_after: u64,
    watchers: Watchers,
    pages: VecDeque<(Instant, Snapshot)>,
}

/// A watch that was just opened: what it missed, and what comes.
pub struct Opened {
    pub missed: Vec<Delivery>,
    pub receiver: mpsc::Receiver<Delivery>,
    pub id: WatcherId,
}

impl ResourceCache {
    /// A cache that knows everything up to `revision`.
    pub fn new(objects: Objects, revision: u64) -> Self {
        let state = State { objects, last: revision, ring_after: revision, ..State::default() };
        Self { readers: ArcSwap::default(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies one change and tells the watchers.
    pub fn apply(&self, revision: u64, key: Arc<str>, new: Option<Arc<Object>>) {
        let readers = self.readers.load_full();
        let mut state = self.state();
        if revision <= state.last {
            return;
        }
        state.last = revision;
        let old = match &new {
            Some(object) => state.objects.insert(key.clone(), object.clone()),
            None => state.objects.remove(&key),
        };
        if new.is_none() && old.is_none() {
            return;
        }
        let event = Arc::new(Event::new(revision, key, new, old));
        state.watchers.dispatch(&event, &readers);
        state.ring_bytes += event.weight();
        state.ring.push_back(event);
        state.trim();
    }

    /// Replaces everything after the store's watch broke: nobody can follow, so all watchers end.
    pub fn reset(&self, objects: Objects, revision: u64) {
        let mut state = self.state();
        state.objects = objects;
        state.last = revision;
        state.ring.clear();
        state.ring_bytes = 0;
        state.ring_after = revision;
        state.watchers.clear();
        state.pages.clear();
    }

    /// Ends all watches and forgets what was read from objects: the kind is described in a new way.
    pub fn restart(&self) {
        let mut state = self.state();
        let fresh = |(key, object): (&Arc<str>, &Arc<Object>)| (key.clone(), Arc::new(object.fresh()));
        state.objects = state.objects.iter().map(fresh).collect();
        state.ring.clear();
        state.ring_bytes = 0;
        state.ring_after = state.last;
        state.watchers.clear();
        state.pages.clear();
    }

    /// Revision of the last change of any object: what was computed from the objects is as old as this says.
    pub fn last(&self) -> u64 {
        self.state().last
    }

    pub fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.state().objects.get(key).cloned()
    }

    /// The objects now; `published` is the revision that the whole cache has reached.
    pub fn snapshot(&self, published: u64) -> Snapshot {
        let state = self.state();
        Snapshot { objects: state.objects.clone(), revision: published.max(state.last) }
    }

    /// The objects at an exact revision, by undoing what came later; none if that is no longer known.
    pub fn snapshot_at(&self, revision: u64) -> Option<Snapshot> {
        let state = self.state();
        let mut objects = state.objects.clone();
        if revision < state.ring_after {
            return None;
        }
        for event in state.ring.iter().rev().take_while(|event| event.revision > revision) {
            match &event.old {
                Some(old) => objects.insert(event.key.clone(), old.clone()),
                None => objects.remove(&event.key),
            };
        }
        Some(Snapshot { objects, revision })
    }

    /// Keeps a snapshot for the later pages of a list.
    pub fn keep_page(&self, snapshot: Snapshot) {
        let mut state = self.state();
        state.trim_pages();
        if state.pages.iter().any(|(_, kept)| kept.revision == snapshot.revision) {
            return;
        }
        if state.pages.len() == PAGE_SNAPSHOTS_MAX {
            state.pages.pop_front();
        }
        state.pages.push_back((Instant::now(), snapshot));
    }

    pub fn page(&self, revision: u64) -> Option<Snapshot> {
        let mut state = self.state();
        state.trim_pages();
        state.pages.iter().find(|(_, kept)| kept.revision == revision).map(|(_, kept)| kept.clone())
    }

    /// Opens a watch for everything after `after`.
    pub fn watch(&self, filter: Filter, after: u64) -> ApiResult<Opened> {
        let readers = self.readers.load_full();
        let mut state = self.state();
        if after < state.ring_after {
            return Err(Status::expired(format!("too old resource version: {after} ({})", state.ring_after)));
        }
        let later = state.ring.iter().rev().take_while(|event| event.revision > after).count();
        let missed = state.ring.iter().skip(state.ring.len() - later);
        let missed =
            missed.filter_map(|event| Some(Delivery::Change(filter.classify(event, &readers)?, event.clone())));
        let missed = missed.collect();
        let (id, receiver) = state.watchers.add(filter);
        Ok(Opened { missed, receiver, id })
    }

    /// Opens a watch that follows a snapshot without a gap.
    pub fn snapshot_and_watch(&self, filter: Filter, published: u64) -> (Snapshot, Opened) {
        let mut state = self.state();
        let snapshot = Snapshot { objects: state.objects.clone(), revision: published.max(state.last) };
        let (id, receiver) = state.watchers.add(filter);
        (snapshot, Opened { missed: Vec::new(), receiver, id })
    }

    pub fn close(&self, id: &WatcherId) {
        self.state().watchers.remove(id);
    }

    /// Sends a watcher a mark of how far it has seen. `published` is read while no change is being applied here.
    pub fn progress(&self, id: &WatcherId, published: impl FnOnce() -> u64) {
        let state = self.state();
        let revision = published().max(state.last);
        state.watchers.progress(id, revision);
    }

    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.objects.len(), state.watchers.len())
    }
}

impl State {
    fn trim(&mut self) {
        while self.ring.len() > RING_EVENTS_MAX || self.ring_bytes > RING_BYTES_MAX {
            let Some(event) = self.ring.pop_front() else { break };
            self.ring_bytes -= event.weight();
            self.ring_after = event.revision;
        }
    }

    fn trim_pages(&mut self) {
        while self.pages.front().is_some_and(|(kept, _)| kept.elapsed() > PAGE_SNAPSHOT_AGE_MAX) {
            self.pages.pop_front();
        }
    }
}

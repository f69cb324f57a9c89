//! Who watches a resource, found through an index so that a change reaches only those it may concern.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::filter::split_key;
use super::{Event, EventType, Filter, Object};
use crate::limits::WATCHER_QUEUE_MAX;
use crate::registry::FieldReader;

/// What a watcher receives.
#[derive(Clone, Debug)]
pub enum Delivery {
    Change(EventType, Arc<Event>),
    /// Everything up to this revision was delivered.
    Progress(u64),
}

/// Where a watcher is filed: under the narrowest thing that it selects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    All,
    Namespace(String),
    Object(String, String),
    Node(String),
}

impl Place {
    fn of(filter: &Filter) -> Self {
        match (&filter.namespace, &filter.name, filter.node()) {
            (Some(namespace), Some(name), _) => Self::Object(namespace.clone(), name.clone()),
            (_, _, Some(node)) => Self::Node(node.to_owned()),
            (Some(namespace), None, None) => Self::Namespace(namespace.clone()),
            _ => Self::All,
        }
    }
}

struct Watcher {
    filter: Filter,
    sender: mpsc::Sender<Delivery>,
}

/// All watchers of one resource.
#[derive(Default)]
pub struct Watchers {
    next: u64,
    places: HashMap<Place, HashMap<u64, Watcher>>,
}

/// Names a watcher until it goes.
#[derive(Clone, Debug)]
pub struct WatcherId(Place, u64);

impl Watchers {
    pub fn add(&mut self, filter: Filter) -> (WatcherId, mpsc::Receiver<Delivery>) {
        let (sender, receiver) = mpsc::channel(WATCHER_QUEUE_MAX);
        let id = WatcherId(Place::of(&filter), self.next);
        self.next += 1;
        self.places.entry(id.0.clone()).or_default().insert(id.1, Watcher { filter, sender });
        (id, receiver)
    }

    pub fn remove(&mut self, id: &WatcherId) {
        if let Some(place) = self.places.get_mut(&id.0) {
            place.remove(&id.1);
            if place.is_empty() {
                self.places.remove(&id.0);
            }
        }
    }

    pub fn clear(&mut self) {
        self.places.clear();
    }

    pub fn len(&self) -> usize {
        self.places.values().map(HashMap::len).sum()
    }

    /// Tells a watcher how far it has seen; a full queue needs no such hint.
    pub fn progress(&self, id: &WatcherId, revision: u64) {
        if let Some(watcher) = self.places.get(&id.0).and_then(|place| place.get(&id.1)) {
            let _full_is_fine = watcher.sender.try_send(Delivery::Progress(revision));
        }
    }

    /// Sends a change to everybody it concerns. A watcher whose queue is full is dropped: its stream ends, and it
    /// comes back with the last version it has seen.
    pub fn dispatch(&mut self, event: &Arc<Event>, readers: &[FieldReader]) {
        let places = self.candidates(event, readers);
        for place in places {
            let Some(watchers) = self.places.get_mut(&place) else { continue };
            watchers.retain(|_, watcher| match watcher.filter.classify(event, readers) {
                Some(kind) => watcher.sender.try_send(Delivery::Change(kind, event.clone())).is_ok(),
                None => true,
            });
        }
    }

    fn candidates(&self, event: &Event, readers: &[FieldReader]) -> Vec<Place> {
        if self.places.is_empty() {
            return Vec::new();
        }
        let (namespace, name) = split_key(&event.key);
        let mut places = vec![Place::All, Place::Namespace(namespace.to_owned())];
        places.push(Place::Object(namespace.to_owned(), name.to_owned()));
        if self.places.keys().any(|place| matches!(place, Place::Node(_))) {
            let mut nodes: Vec<&str> = [&event.new, &event.old].into_iter().filter_map(|o| node(o, readers)).collect();
            nodes.dedup();
            places.extend(nodes.into_iter().map(|node| Place::Node(node.to_owned())));
        }
        places
    }
}

fn node<'a>(object: &'a Option<Arc<Object>>, readers: &[FieldReader]) -> Option<&'a str> {
    let at = readers.iter().position(|reader| reader.path == "spec.nodeName")?;
    object.as_ref()?.selectable(readers).fields.get(at).map(String::as_str)
}

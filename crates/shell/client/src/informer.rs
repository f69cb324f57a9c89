//! A shared cache of one kind: small views of its objects, indexed, with change callbacks and a revision to wait for.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::watch;

/// Namespace (empty for cluster-scoped kinds) and name of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// The controlling owner of an object (`controller: true` in its ownerReferences).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnerKey {
    pub kind: String,
    pub name: String,
    pub uid: String,
}

/// One cached object: its identity and the view kept of it.
#[derive(Debug)]
pub struct Cached<V> {
    pub key: ObjectKey,
    pub uid: String,
    pub resource_version: String,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    pub controller: Option<OwnerKey>,
    pub view: V,
}

impl<V> Deref for Cached<V> {
    type Target = V;
    fn deref(&self) -> &V {
        &self.view
    }
}

impl<V> Cached<V> {
    pub(crate) fn new(meta: &ObjectMeta, view: V) -> Self {
        let controller = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        Self {
            key: ObjectKey::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default()),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            controller: controller.map(|owner| OwnerKey {
                kind: owner.kind.clone(),
                name: owner.name.clone(),
                uid: owner.uid.clone(),
            }),
            view,
        }
    }
}

/// What happened to one object; at least one side is present.
pub struct Change<V> {
    pub old: Option<Arc<Cached<V>>>,
    pub new: Option<Arc<Cached<V>>>,
}

impl<V> Clone for Change<V> {
    fn clone(&self) -> Self {
        Self { old: self.old.clone(), new: self.new.clone() }
    }
}

impl<V> Change<V> {
    /// The sides that exist, older first: a mapper that enqueues for both misses no former owner.
    pub fn sides(&self) -> impl Iterator<Item = &Arc<Cached<V>>> {
        self.old.iter().chain(self.new.iter())
    }

    /// The newest state known.
    pub fn latest(&self) -> Option<&Arc<Cached<V>>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

/// A named secondary index: the values under which an object is found.
pub struct Index<V> {
    pub name: &'static str,
    pub values: fn(&Cached<V>) -> Vec<String>,
}

impl<V> Clone for Index<V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<V> Copy for Index<V> {}

type Subscriber<V> = Box<dyn Fn(&Change<V>) + Send + Sync>;

struct State<V> {
    objects: HashMap<String, HashMap<String, Arc<Cached<V>>>>,
    /// For each index, the objects under each value: a look at thousands of them searches for none.
    indexes: Vec<HashMap<String, HashMap<ObjectKey, Arc<Cached<V>>>>>,
}

pub(crate) struct Shared<V> {
    indexes: Vec<Index<V>>,
    state: RwLock<State<V>>,
    subscribers: Mutex<Vec<Subscriber<V>>>,
    /// The newest resourceVersion applied; `None` until the first list is complete.
    revision: watch::Sender<Option<u64>>,
    /// Counts changes, for consumers that read the whole cache after each.
    generation: watch::Sender<u64>,
}

/// A handle on a shared cache; cloning is cheap, reads never wait for the network.
pub struct Informer<V> {
    pub(crate) shared: Arc<Shared<V>>,
}

impl<V> Clone for Informer<V> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<V: Send + Sync + 'static> Informer<V> {
    pub(crate) fn empty(indexes: &[Index<V>]) -> Self {
        let state = State { objects: HashMap::new(), indexes: indexes.iter().map(|_| HashMap::new()).collect() };
        Self {
            shared: Arc::new(Shared {
                indexes: indexes.to_vec(),
                state: RwLock::new(state),
                subscribers: Mutex::new(Vec::new()),
                revision: watch::Sender::new(None),
                generation: watch::Sender::new(0),
            }),
        }
    }

    /// One object, or nothing when the cache does not hold it.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Cached<V>>> {
        self.read().objects.get(namespace)?.get(name).cloned()
    }

    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<Cached<V>>> {
        self.get(&key.namespace, &key.name)
    }

    /// Every object, in no particular order.
    pub fn list(&self) -> Vec<Arc<Cached<V>>> {
        self.read().objects.values().flat_map(HashMap::values).cloned().collect()
    }

    /// Every object of one namespace.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<Cached<V>>> {
        self.read().objects.get(namespace).map(|names| names.values().cloned().collect()).unwrap_or_default()
    }

    /// The objects that the named index files under `value`; an unknown index yields nothing.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<Cached<V>>> {
        let Some(position) = self.shared.indexes.iter().position(|candidate| candidate.name == index) else {
            debug_assert!(false, "no index {index}");
            return Vec::new();
        };
        let state = self.read();
        state.indexes[position].get(value).map(|found| found.values().cloned().collect()).unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.read().objects.values().map(HashMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls back for every object held now and for every change from here on. The callback runs on the watch task:
    /// it must not block, and usually only adds a key to a queue.
    pub fn subscribe(&self, subscriber: impl Fn(&Change<V>) + Send + Sync + 'static) {
        // The subscriber lock is held over both steps, so that no change falls between replay and registration.
        let mut subscribers = self.shared.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        for object in self.list() {
            subscriber(&Change { old: None, new: Some(object) });
        }
        subscribers.push(Box::new(subscriber));
    }

    /// A counter that moves with every change: for consumers that look at the whole cache after each.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        self.shared.revision.borrow().is_some()
    }

    /// Waits for the first complete list.
    pub async fn synced(&self) {
        // The sender lives in `shared`, so waiting ends only with a value.
        let _ = self.shared.revision.subscribe().wait_for(Option::is_some).await;
    }

    /// The newest resourceVersion this cache has seen.
    pub fn revision(&self) -> Option<u64> {
        *self.shared.revision.borrow()
    }

    /// Waits until the cache shows a write that answered with `revision`; false when `timeout` passes first.
    pub async fn reached(&self, revision: u64, timeout: Duration) -> bool {
        let mut seen = self.shared.revision.subscribe();
        let reached = seen.wait_for(|seen| seen.is_some_and(|seen| seen >= revision));
        tokio::time::timeout(timeout, reached).await.is_ok()
    }

    /// Waits until the cache no longer shows this incarnation as living; false when `timeout` passes first.
    pub async fn gone(&self, key: &ObjectKey, uid: &str, timeout: Duration) -> bool {
        let mut changes = self.changes();
        let waiting = async {
            while self.get_key(key).is_some_and(|known| known.uid == uid && !known.deleting) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(timeout, waiting).await.is_ok()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State<V>> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts one object in (or, with `new: None`, takes it out) and tells the subscribers.
    pub(crate) fn apply(&self, key: &ObjectKey, new: Option<Cached<V>>) {
        let new = new.map(Arc::new);
        // One order for all: subscribers, then state; readers take only the state.
        let subscribers = self.shared.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.swap(key, new.clone());
        if old.is_none() && new.is_none() {
            return;
        }
        let change = Change { old, new };
        for subscriber in subscribers.iter() {
            subscriber(&change);
        }
        self.shared.generation.send_modify(|generation| *generation += 1);
    }

    fn swap(&self, key: &ObjectKey, new: Option<Arc<Cached<V>>>) -> Option<Arc<Cached<V>>> {
        let mut guard = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        let old = match &new {
            Some(new) => state.objects.entry(key.namespace.clone()).or_default().insert(key.name.clone(), new.clone()),
            None => {
                let names = state.objects.get_mut(&key.namespace)?;
                let old = names.remove(&key.name);
                if names.is_empty() {
                    state.objects.remove(&key.namespace);
                }
                old
            }
        };
        for (index, table) in self.shared.indexes.iter().zip(&mut state.indexes) {
            for value in old.iter().flat_map(|old| (index.values)(old)) {
                if let Some(found) = table.get_mut(&value) {
                    found.remove(key);
                    if found.is_empty() {
                        table.remove(&value);
                    }
                }
            }
            if let Some(new) = &new {
                for value in (index.values)(new) {
                    table.entry(value).or_default().insert(key.clone(), new.clone());
                }
            }
        }
        old
    }

    /// Makes the cache equal to a complete list: absent objects are deleted, unchanged ones cause no notification.
    pub(crate) fn replace(&self, objects: Vec<Cached<V>>, revision: u64) {
        let mut gone: HashSet<ObjectKey> =
            self.read().objects.values().flat_map(HashMap::values).map(|object| object.key.clone()).collect();
        for object in objects {
            gone.remove(&object.key);
            let same = self
                .get_key(&object.key)
                .is_some_and(|known| known.uid == object.uid && known.resource_version == object.resource_version);
            if !same {
                let key = object.key.clone();
                self.apply(&key, Some(object));
            }
        }
        for key in gone {
            self.apply(&key, None);
        }
        self.saw(revision);
    }

    pub(crate) fn saw(&self, revision: u64) {
        self.shared.revision.send_if_modified(|seen| {
            let newer = seen.is_none_or(|seen| revision > seen);
            if newer {
                *seen = Some(revision);
            }
            newer
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn object(name: &str, version: &str, node: &'static str) -> Cached<&'static str> {
        let meta = ObjectMeta {
            namespace: Some("a".into()),
            name: Some(name.into()),
            uid: Some(format!("uid-{name}")),
            resource_version: Some(version.into()),
            ..Default::default()
        };
        Cached::new(&meta, node)
    }

    fn names(objects: Vec<Arc<Cached<&'static str>>>) -> Vec<String> {
        let mut names: Vec<String> = objects.iter().map(|object| object.key.name.clone()).collect();
        names.sort();
        names
    }

    #[test]
    fn indexes_follow_changes_and_relists() {
        let informer = Informer::empty(&[Index {
            name: "node",
            values: |object: &Cached<&'static str>| vec![object.view.to_owned()],
        }]);
        assert!(!informer.is_synced());
        informer.replace(vec![object("x", "1", "n1"), object("y", "2", "n1")], 2);
        assert_eq!(names(informer.by_index("node", "n1")), ["x", "y"]);
        informer.apply(&ObjectKey::new("a", "x"), Some(object("x", "3", "n2")));
        assert_eq!(names(informer.by_index("node", "n1")), ["y"]);
        informer.replace(vec![object("x", "3", "n2")], 9);
        assert_eq!(informer.len(), 1);
        assert!(informer.by_index("node", "n1").is_empty());
        assert_eq!(informer.revision(), Some(9));
    }

    #[test]
    fn a_relist_notifies_only_what_changed_and_subscribers_get_a_replay() {
        let informer = Informer::empty(&[]);
        informer.replace(vec![object("x", "1", "n1"), object("y", "2", "n1")], 2);
        let calls = Arc::new(AtomicUsize::new(0));
        let count = calls.clone();
        informer.subscribe(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        informer.replace(vec![object("x", "1", "n1"), object("y", "5", "n1")], 5);
        assert_eq!(calls.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn own_writes_can_be_waited_for() {
        let informer: Informer<&str> = Informer::empty(&[]);
        informer.saw(5);
        assert!(informer.reached(5, Duration::ZERO).await);
        assert!(!informer.reached(6, Duration::from_millis(1)).await);
        let waiting = informer.clone();
        let task = tokio::spawn(async move { waiting.reached(7, Duration::from_secs(10)).await });
        informer.saw(8);
        assert!(task.await.unwrap());
    }
}

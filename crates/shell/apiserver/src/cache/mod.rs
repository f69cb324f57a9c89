//! What the API server knows without asking the store: every resource, fed by one watch over everything stored.

mod event;
mod filter;
mod object;
mod resource;
mod watchers;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use futures::StreamExt;
use meta::{ApiResult, GroupResource, Reason, Status, StatusDetails};
use store::contract::{Event as StoreEvent, EventKind, Range, Store, StoreResult};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use event::{Event, EventType, line};
pub use filter::{Filter, split_key};
pub use object::{Object, encode_stored, splice};
pub use resource::{Objects, Opened, ResourceCache, Snapshot};
pub use watchers::{Delivery, WatcherId};

use crate::limits::{CACHE_WAIT_MAX, STORE_RETRY_PAUSE};
use crate::registry::{FieldReader, STORE_ROOT, store_prefix};

/// The first key after everything under `/registry/`.
const STORE_END: &str = "/registry0";

/// All resources. Reads that must be current wait until the cache has reached the store's revision.
pub struct Cache {
    store: Arc<dyn Store>,
    /// By store prefix; a resource appears with its first object or its first reader.
    resources: RwLock<HashMap<String, Arc<ResourceCache>>>,
    /// Everything up to this revision is in the maps.
    reached: watch::Sender<u64>,
}

impl Cache {
    /// Reads everything stored, then follows the store in the background until cancelled.
    pub async fn start(store: Arc<dyn Store>, stop: CancellationToken) -> StoreResult<Arc<Self>> {
        let cache = Arc::new(Self { store, resources: RwLock::default(), reached: watch::Sender::new(0) });
        let revision = cache.fill().await?;
        let follower = cache.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follower.follow(revision) => {}
            }
        });
        Ok(cache)
    }

    pub fn reached(&self) -> u64 {
        *self.reached.borrow()
    }

    /// The cache of a resource.
    pub fn resource(&self, resource: &GroupResource) -> Arc<ResourceCache> {
        self.by_prefix(&store_prefix(resource))
    }

    /// One object of a resource, in its stored version.
    pub fn object(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let key = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
        self.resource(&GroupResource::new(group.to_owned(), plural.to_owned())).get(&key)
    }

    /// Tells how the selectable fields of a resource are read. Called before its first request.
    pub fn set_readers(&self, resource: &GroupResource, readers: Vec<FieldReader>) {
        self.resource(resource).readers.store(Arc::new(readers));
    }

    /// Numbers of objects and watchers by resource, for metrics.
    pub fn counts(&self) -> Vec<(String, usize, usize)> {
        let resources = self.resources.read().unwrap_or_else(PoisonError::into_inner);
        let count = |(prefix, cache): (&String, &Arc<ResourceCache>)| {
            let (objects, watchers) = cache.counts();
            let mut parts = prefix.trim_start_matches(STORE_ROOT).trim_end_matches('/').rsplitn(2, '/');
            let (plural, group) = (parts.next().unwrap_or(""), parts.next().unwrap_or("core"));
            let name = if group == "core" { plural.to_owned() } else { format!("{plural}.{group}") };
            (name, objects, watchers)
        };
        resources.iter().map(count).collect()
    }

    /// Waits until the cache has everything that is committed now.
    pub async fn wait_current(&self) -> ApiResult<u64> {
        let revision = self.store.revision().await.map_err(crate::engine::store_failed)?;
        self.wait_for(revision).await?;
        Ok(revision)
    }

    /// Waits until the cache has reached a revision; one from the future is answered with a retryable timeout.
    pub async fn wait_for(&self, revision: u64) -> ApiResult<()> {
        let mut reached = self.reached.subscribe();
        let arrived = reached.wait_for(|now| *now >= revision);
        if tokio::time::timeout(CACHE_WAIT_MAX, arrived).await.is_ok() {
            return Ok(());
        }
        let now = self.reached();
        let message = format!("Too large resource version: {revision}, current: {now}");
        let mut status = Status::failure(Reason::Timeout, format!("Timeout: {message}"));
        let cause = meta::Cause { reason: "ResourceVersionTooLarge".to_owned(), message, field: String::new() };
        status.details =
            Some(StatusDetails { causes: vec![cause], retry_after_seconds: 1, ..StatusDetails::default() });
        Err(status)
    }

    fn by_prefix(&self, prefix: &str) -> Arc<ResourceCache> {
        let known = self.resources.read().unwrap_or_else(PoisonError::into_inner).get(prefix).cloned();
        known.unwrap_or_else(|| {
            let mut resources = self.resources.write().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Arc::new(ResourceCache::new(Objects::new(), self.reached()));
            resources.entry(prefix.to_owned()).or_insert_with(fresh).clone()
        })
    }

    /// Reads everything at one revision.
    async fn fill(&self) -> StoreResult<u64> {
        let range =
            Range { start: Bytes::from_static(STORE_ROOT.as_bytes()), end: Bytes::from_static(STORE_END.as_bytes()) };
        let page = self.store.list(range, 0, None).await?;
        let mut all: HashMap<String, Objects> = HashMap::new();
        for entry in &page.entries {
            let Some((prefix, key)) = split_store_key(&entry.key) else { continue };
            let object = Arc::new(Object::new(&entry.value, entry.mod_revision));
            all.entry(prefix.to_owned()).or_default().insert(Arc::from(key), object);
        }
        let mut resources = self.resources.write().unwrap_or_else(PoisonError::into_inner);
        for (prefix, cache) in resources.iter() {
            cache.reset(all.remove(prefix).unwrap_or_default(), page.revision);
        }
        for (prefix, objects) in all {
            resources.insert(prefix, Arc::new(ResourceCache::new(objects, page.revision)));
        }
        drop(resources);
        self.reached.send_replace(page.revision);
        Ok(page.revision)
    }

    /// Follows the store for ever; when its watch breaks, reads everything again.
    async fn follow(&self, mut revision: u64) {
        loop {
            if let Err(error) = self.follow_once(&mut revision).await {
                tracing::warn!(%error, revision, "the store's watch broke; opening it again");
                tokio::time::sleep(STORE_RETRY_PAUSE).await;
                if !error.is_retryable() {
                    match self.fill().await {
                        Ok(filled) => revision = filled,
                        Err(error) => tracing::warn!(%error, "reading the store again failed"),
                    }
                }
            }
        }
    }

    async fn follow_once(&self, revision: &mut u64) -> StoreResult<()> {
        let range =
            Range { start: Bytes::from_static(STORE_ROOT.as_bytes()), end: Bytes::from_static(STORE_END.as_bytes()) };
        let mut stream = self.store.watch(range, *revision).await?;
        while let Some(batch) = stream.next().await {
            for event in batch? {
                *revision = event.revision.max(*revision);
                self.apply(&event);
            }
            self.reached.send_replace(*revision);
        }
        Err(store::contract::StoreError::Unavailable("the watch ended".to_owned()))
    }

    fn apply(&self, event: &StoreEvent) {
        let Some((prefix, key)) = split_store_key(&event.key) else { return };
        let new = match event.kind {
            EventKind::Put => Some(Arc::new(Object::new(&event.value, event.revision))),
            EventKind::Delete => None,
        };
        self.by_prefix(prefix).apply(event.revision, Arc::from(key), new);
    }
}

/// `/registry/apps/deployments/default/web` is the prefix `/registry/apps/deployments/` and the key `default/web`.
fn split_store_key(key: &[u8]) -> Option<(&str, &str)> {
    let key = std::str::from_utf8(key).ok()?;
    let rest = key.strip_prefix(STORE_ROOT)?;
    let mut slashes = rest.match_indices('/').map(|(at, _)| at);
    let end = slashes.nth(1)? + STORE_ROOT.len() + 1;
    Some(key.split_at(end))
}

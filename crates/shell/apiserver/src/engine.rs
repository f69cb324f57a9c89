//! The generic engine: one store, one cache and one registry behind every verb of every kind.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use meta::{ApiResult, GroupResource, Reason, Status};
use serde_json::Value;
use store::contract::{Expect, Store, StoreError};

use crate::admission::policies::{MutatingPolicies, ValidatingPolicies};
use crate::admission::webhooks::Webhooks;
use crate::aggregation::Aggregation;
use crate::cache::{Cache, Object, ResourceCache, Snapshot, encode_stored};
use crate::computed::Computed;
use crate::config::Config;
use crate::flow::Flow;
use crate::info::RequestInfo;
use crate::layers::flow::InFlight;
use crate::metrics::Metrics;
use crate::registry::{FieldReader, Registry, Served};
use crate::subresources::VirtualResource;

pub struct Engine {
    pub config: Config,
    pub store: Arc<dyn Store>,
    pub cache: Arc<Cache>,
    pub metrics: Metrics,
    pub in_flight: InFlight,
    pub flow: Flow,
    pub webhooks: Webhooks,
    pub aggregation: Aggregation,
    pub mutating_policies: MutatingPolicies,
    pub validating_policies: ValidatingPolicies,
    registry: ArcSwap<Registry>,
}

/// An object as the store has it.
pub struct Stored {
    /// With its resourceVersion, in the stored version.
    pub value: Value,
    /// Without its resourceVersion.
    pub bytes: Bytes,
    pub revision: u64,
}

impl Engine {
    pub fn new(mut config: Config, store: Arc<dyn Store>, cache: Arc<Cache>) -> Self {
        let registry = Registry::new(std::mem::take(&mut config.kinds));
        let engine = Self {
            config,
            store,
            cache,
            metrics: Metrics::default(),
            in_flight: InFlight::default(),
            flow: Flow::default(),
            webhooks: Webhooks::default(),
            aggregation: Aggregation::default(),
            mutating_policies: MutatingPolicies::default(),
            validating_policies: ValidatingPolicies::default(),
            registry: ArcSwap::default(),
        };
        engine.set_registry(registry);
        engine
    }

    pub fn registry(&self) -> Arc<Registry> {
        self.registry.load_full()
    }

    /// Puts a new table in place of the old one.
    pub fn set_registry(&self, registry: Registry) {
        for served in registry.all().filter(|served| served.is_storage_version()) {
            let mut readers: Vec<_> = served.kind.selectable_fields.iter().map(FieldReader::from).collect();
            if let Some(custom) = &served.custom {
                readers.extend(custom.indexed.iter().map(|path| FieldReader::at(path)));
            }
            let views = registry.all().filter(|row| !row.is_storage_version() && row.stored_as == served.stored_as);
            for reader in views.flat_map(|row| FieldReader::of_view(&row.kind)) {
                if !readers.iter().any(|known| known.path == reader.path) {
                    readers.push(reader);
                }
            }
            self.cache.set_readers(&served.stored_as, readers);
        }
        self.registry.store(Arc::new(registry));
    }

    /// The code that answers a create at this place, where something is registered for it.
    pub fn virtual_resource(&self, info: &RequestInfo) -> Option<&Arc<dyn VirtualResource>> {
        let place = (info.group.as_str(), info.resource.as_str(), info.subresource.as_str());
        self.config.virtual_resources.iter().find(|handler| handler.place() == place)
    }

    /// The code that works out the objects of this resource, where they are not stored.
    pub fn computed(&self, info: &RequestInfo) -> Option<&Arc<dyn Computed>> {
        let place = (info.group.as_str(), info.resource.as_str());
        self.config.computed.iter().find(|handler| handler.place() == place)
    }

    pub fn resource(&self, served: &Served) -> Arc<ResourceCache> {
        self.cache.resource(&served.stored_as)
    }

    /// All objects of a built-in or custom resource as the cache knows them now, in their stored version.
    pub fn snapshot(&self, group: &str, plural: &str) -> Snapshot {
        let resource = GroupResource::new(group.to_owned(), plural.to_owned());
        self.cache.resource(&resource).snapshot(self.cache.reached())
    }

    /// One object from the cache, in its stored version.
    pub fn cached(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.cache.object(group, plural, namespace, name)
    }

    /// Reads an object from the store itself: the truth for a write.
    pub async fn read(&self, served: &Served, namespace: &str, name: &str) -> ApiResult<Option<Stored>> {
        let key = served.store_key(namespace, name);
        let (entry, _) = self.store.get(key.as_bytes()).await.map_err(store_failed)?;
        entry.map(|entry| stored(entry.value, entry.mod_revision)).transpose()
    }

    /// The same, where absence is the client's mistake.
    pub async fn read_existing(&self, served: &Served, namespace: &str, name: &str) -> ApiResult<Stored> {
        self.read(served, namespace, name).await?.ok_or_else(|| Status::not_found(&served.resource(), name))
    }

    /// Stores a new object; the answer has its resourceVersion. `None`: the name is taken.
    pub async fn insert(&self, served: &Served, namespace: &str, name: &str, value: &Value) -> ApiResult<Option<u64>> {
        let key = Bytes::from(served.store_key(namespace, name));
        match self.store.put(key, encode_stored(value)?, Expect::Absent).await {
            Ok(revision) => Ok(Some(revision)),
            Err(StoreError::Conflict(_)) => Ok(None),
            Err(error) => Err(store_failed(error)),
        }
    }

    /// Stores a change of an object that is still as it was read. `None`: somebody else was faster.
    /// A change that changes nothing writes nothing and keeps the revision.
    pub async fn replace(
        &self,
        served: &Served,
        key: (&str, &str),
        old: &Stored,
        new: &Value,
    ) -> ApiResult<Option<u64>> {
        let bytes = encode_stored(new)?;
        if bytes == old.bytes {
            return Ok(Some(old.revision));
        }
        let key = Bytes::from(served.store_key(key.0, key.1));
        match self.store.put(key, bytes, Expect::Revision(old.revision)).await {
            Ok(revision) => Ok(Some(revision)),
            Err(StoreError::Conflict(_)) => Ok(None),
            Err(error) => Err(store_failed(error)),
        }
    }

    /// Removes an object that is still as it was read. `false`: somebody else was faster.
    pub async fn remove(&self, served: &Served, key: (&str, &str), revision: u64) -> ApiResult<bool> {
        let key = Bytes::from(served.store_key(key.0, key.1));
        match self.store.delete(key, revision).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict(_)) => Ok(false),
            Err(error) => Err(store_failed(error)),
        }
    }
}

fn stored(bytes: Bytes, revision: u64) -> ApiResult<Stored> {
    let mut value: Value =
        serde_json::from_slice(&bytes).map_err(|error| Status::internal(format!("stored object: {error}")))?;
    set_revision(&mut value, revision);
    Ok(Stored { value, bytes, revision })
}

/// Writes `metadata.resourceVersion`.
pub fn set_revision(value: &mut Value, revision: u64) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".to_owned(), revision.to_string().into());
    }
}

/// What a client reads when the store says no for a reason that is not the client's.
pub fn store_failed(error: StoreError) -> Box<Status> {
    match &error {
        StoreError::Unavailable(_) => {
            let mut status = Status::failure(Reason::ServiceUnavailable, error.to_string());
            status.details = Some(meta::StatusDetails { retry_after_seconds: 1, ..Default::default() });
            status
        }
        StoreError::TooLarge { .. } => Status::failure(Reason::RequestEntityTooLarge, error.to_string()),
        StoreError::Compacted { .. } => Status::expired(error.to_string()),
        StoreError::Conflict(_) | StoreError::Corrupt(_) => Status::internal(error),
    }
}

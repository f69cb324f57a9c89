//! ConfigMaps and Secrets that pods of this node use: one watch per referenced object, and a wake-up for its users when it changes.

use client::{Informer, InformerConfig};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest wait for the first answer about an object.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(10);

/// Which kind of object holds the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl DataKind {
    /// The word in messages: `configmap` or `secret`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// Keys and contents of a ConfigMap or Secret.
pub type Data = BTreeMap<String, Vec<u8>>;
type Key = (DataKind, String, String);

struct Entry {
    informer: Informer<Data>,
    stop: CancellationToken,
    users: Arc<Mutex<HashSet<String>>>,
}

/// The watched objects. Clones share them.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    entries: Arc<Mutex<HashMap<Key, Entry>>>,
    changed: Arc<dyn Fn(&str) + Send + Sync>,
    stop: CancellationToken,
}

fn config_map(object: ConfigMap) -> Data {
    let text = object.data.into_iter().flatten().map(|(k, v)| (k, v.into_bytes()));
    text.chain(object.binary_data.into_iter().flatten().map(|(k, v)| (k, v.0))).collect()
}

fn secret(object: Secret) -> Data {
    object.data.into_iter().flatten().map(|(k, v)| (k, v.0)).collect()
}

impl Objects {
    /// `changed` is called with a pod's uid when an object that it uses changes.
    pub fn new(client: Client, stop: CancellationToken, changed: Arc<dyn Fn(&str) + Send + Sync>) -> Objects {
        Objects { client, entries: Arc::default(), changed, stop }
    }

    /// The object's data, `None` if it does not exist. The pod is woken on every later change.
    ///
    /// # Errors
    /// When the API does not answer in time.
    pub async fn get(
        &self,
        kind: DataKind,
        namespace: &str,
        name: &str,
        pod_uid: &str,
    ) -> Result<Option<Data>, String> {
        let informer = self.informer(kind, namespace, name, pod_uid);
        if tokio::time::timeout(FIRST_ANSWER_MAX, informer.synced()).await.is_err() {
            return Err(format!("failed to sync {} cache: timed out waiting for the condition", kind.as_str()));
        }
        Ok(informer.get(namespace, name).map(|cached| cached.view.clone()))
    }

    fn informer(&self, kind: DataKind, namespace: &str, name: &str, pod_uid: &str) -> Informer<Data> {
        let key = (kind, namespace.to_string(), name.to_string());
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(key).or_insert_with(|| self.follow(kind, namespace, name));
        entry.users.lock().unwrap_or_else(PoisonError::into_inner).insert(pod_uid.to_string());
        entry.informer.clone()
    }

    fn follow(&self, kind: DataKind, namespace: &str, name: &str) -> Entry {
        let stop = self.stop.child_token();
        let plural = if kind == DataKind::Secret { "secrets" } else { "configmaps" };
        let path = format!("/api/v1/namespaces/{namespace}/{plural}");
        let config = InformerConfig::all(path).fields(format!("metadata.name={name}"));
        let client = self.client.clone();
        let informer = match kind {
            DataKind::ConfigMap => Informer::start(client, config, config_map, &[], stop.clone()),
            DataKind::Secret => Informer::start(client, config, secret, &[], stop.clone()),
        };
        let users: Arc<Mutex<HashSet<String>>> = Arc::default();
        let (interested, changed) = (users.clone(), self.changed.clone());
        informer.subscribe(move |_| {
            let users: Vec<String> =
                interested.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
            users.iter().for_each(|uid| changed(uid));
        });
        Entry { informer, stop, users }
    }

    /// Ends the watches that only this pod needed.
    pub fn release(&self, pod_uid: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| {
            let mut users = entry.users.lock().unwrap_or_else(PoisonError::into_inner);
            users.remove(pod_uid);
            if users.is_empty() {
                entry.stop.cancel();
            }
            !users.is_empty()
        });
    }
}

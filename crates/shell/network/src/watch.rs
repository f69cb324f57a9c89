//! From API watches to changes of small views: one task per kind, complete lists turned into differences.

use crate::policy::PolicyChange;
use crate::upstreams::Upstreams;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use netplan::dns::Zone;
use netplan::policy::view::{PodView, PolicyView};
use netplan::proxy::ProxyConfig;
use netplan::view::{Key, ServiceView, SliceView};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;

/// One change of one object, or the news that a kind's list is complete.
#[derive(Clone, Debug)]
pub enum Change {
    Service(Key, Option<ServiceView>),
    Slice(Key, Option<SliceView>),
    /// What the rules depend on beside objects; the table is replaced.
    Config(Box<ProxyConfig>),
    ServicesSynced,
    SlicesSynced,
}

impl Change {
    /// Notes in the DNS zone what it says about an object.
    pub fn tell(&self, zone: &mut Zone) {
        match self {
            Self::Service(key, view) => zone.set_service(key.clone(), view.clone()),
            Self::Slice(key, view) => zone.set_slice(key.clone(), view.clone()),
            Self::Config(_) | Self::ServicesSynced | Self::SlicesSynced => {}
        }
    }
}

fn key(object: &impl ResourceExt) -> Key {
    Key::new(object.namespace().unwrap_or_default(), object.name_any())
}

/// An object, or why its content does not fit its type; its name is known in either case. The bytes are decoded once.
#[derive(Clone, Debug)]
struct Loose<K> {
    metadata: ObjectMeta,
    content: Result<K, String>,
}

impl<'de, K: Resource + DeserializeOwned> Deserialize<'de> for Loose<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Named {
            #[serde(default)]
            metadata: ObjectMeta,
        }
        let text = Box::<RawValue>::deserialize(deserializer)?;
        match serde_json::from_str::<K>(text.get()) {
            Ok(object) => Ok(Self { metadata: object.meta().clone(), content: Ok(object) }),
            Err(error) => {
                let Named { metadata } = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                Ok(Self { metadata, content: Err(error.to_string()) })
            }
        }
    }
}

impl<K: Resource> Resource for Loose<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }
    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }
    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }
    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Watches all objects of one kind for ever. `sink` gets every object that came or went, and after each complete list
/// those that it no longer holds; `None` as key marks the end of such a list. Objects are decoded one by one, so that one
/// that does not fit its type hides no other.
async fn follow<K, F>(client: Client, sink: impl FnMut(Option<Key>, Option<K>) -> F)
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    F: Future<Output = ()>,
{
    follow_some(Api::all(client), watcher::Config::default(), sink).await;
}

/// As [`follow`], of some objects.
async fn follow_some<K, F>(
    api: Api<Loose<K>>,
    config: watcher::Config,
    mut sink: impl FnMut(Option<Key>, Option<K>) -> F,
) where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    F: Future<Output = ()>,
{
    let mut known = BTreeSet::new();
    let mut listed: Option<BTreeSet<Key>> = None;
    let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = Some(BTreeSet::new()),
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                let key = key(&object);
                if let Some(listed) = &mut listed {
                    listed.insert(key.clone());
                }
                match object.content {
                    Ok(object) => {
                        known.insert(key.clone());
                        sink(Some(key), Some(object)).await;
                    }
                    Err(error) => tracing::error!(%key, %error, "leaving an undecodable object as it was"),
                }
            }
            Ok(Event::Delete(object)) => {
                let key = key(&object);
                known.remove(&key);
                sink(Some(key), None).await;
            }
            Ok(Event::InitDone) => {
                let listed = listed.take().unwrap_or_default();
                let gone: Vec<Key> = known.difference(&listed).cloned().collect();
                known.retain(|key| listed.contains(key));
                for key in gone {
                    sink(Some(key), None).await;
                }
                sink(None, None).await;
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "watch broke, trying again"),
        }
    }
}

/// Follows all Services.
pub async fn services<F: Future<Output = ()>>(client: Client, mut sink: impl FnMut(Change) -> F) {
    follow(client, |key, object: Option<Service>| {
        sink(match key {
            Some(key) => Change::Service(key, object.as_ref().map(ServiceView::from)),
            None => Change::ServicesSynced,
        })
    })
    .await;
}

/// Follows all EndpointSlices.
pub async fn slices<F: Future<Output = ()>>(client: Client, mut sink: impl FnMut(Change) -> F) {
    follow(client, |key, object: Option<EndpointSlice>| {
        sink(match key {
            Some(key) => Change::Slice(key, object.as_ref().and_then(SliceView::from_object)),
            None => Change::SlicesSynced,
        })
    })
    .await;
}

/// Follows all Nodes; the name is `None` at the end of a complete list.
pub async fn nodes<F: Future<Output = ()>>(client: Client, mut sink: impl FnMut(Option<String>, Option<Node>) -> F) {
    follow(client, |key, object: Option<Node>| sink(key.map(|key| key.name), object)).await;
}

/// Follows the ConfigMap with the upstream resolvers; without it there are none.
pub async fn upstreams(client: Client, sink: impl Fn(Upstreams)) {
    let config = watcher::Config::default().fields("metadata.name=kube-dns");
    follow_some(Api::namespaced(client, "kube-system"), config, |key, object: Option<ConfigMap>| {
        if key.is_some() {
            sink(object.as_ref().map(Upstreams::read).unwrap_or_default());
        }
        std::future::ready(())
    })
    .await;
}

/// Follows all NetworkPolicies.
pub async fn policies<F: Future<Output = ()>>(client: Client, mut sink: impl FnMut(PolicyChange) -> F) {
    follow(client, |key, object: Option<NetworkPolicy>| {
        sink(match key {
            Some(key) => PolicyChange::Policy(key, object.as_ref().and_then(PolicyView::from_object)),
            None => PolicyChange::PoliciesSynced,
        })
    })
    .await;
}

/// Follows all Pods.
pub async fn pods<F: Future<Output = ()>>(client: Client, mut sink: impl FnMut(PolicyChange) -> F) {
    follow(client, |key, object: Option<Pod>| {
        sink(match key {
            Some(key) => PolicyChange::Pod(key, object.as_ref().and_then(PodView::from_object)),
            None => PolicyChange::PodsSynced,
        })
    })
    .await;
}

/// Follows all Namespaces.
pub async fn namespaces<F: Future<Output = ()>>(client: Client, mut sink: impl FnMut(PolicyChange) -> F) {
    follow(client, |key, object: Option<Namespace>| {
        sink(match key {
            Some(key) => PolicyChange::Namespace(key.name, object.map(|o| o.metadata.labels.unwrap_or_default())),
            None => PolicyChange::NamespacesSynced,
        })
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::{ObjectList, WatchEvent};

    #[test]
    fn an_object_that_does_not_fit_hides_no_other() {
        let good = r#"{"metadata":{"name":"good"},"spec":{"clusterIP":"10.0.0.1"}}"#;
        let bad = r#"{"metadata":{"name":"bad","namespace":"a"},"spec":{"ports":7}}"#;
        let list = format!(r#"{{"kind":"ServiceList","apiVersion":"v1","metadata":{{}},"items":[{bad},{good}]}}"#);
        let list: ObjectList<Loose<Service>> = serde_json::from_str(&list).unwrap();
        let names: Vec<(String, bool)> =
            list.items.iter().map(|object| (object.name_any(), object.content.is_ok())).collect();
        assert_eq!(names, [("bad".to_owned(), false), ("good".to_owned(), true)]);
        for (text, fits) in [(good, true), (bad, false)] {
            let event = format!(r#"{{"type":"MODIFIED","object":{text}}}"#);
            let event: WatchEvent<Loose<Service>> = serde_json::from_str(&event).unwrap();
            assert!(matches!(event, WatchEvent::Modified(object) if object.content.is_ok() == fits));
        }
    }
}

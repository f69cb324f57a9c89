//! From API watches to changes of small views: one task per kind, complete lists turned into differences.

use crate::policy::PolicyChange;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use netplan::policy::view::{PodView, PolicyView};
use netplan::proxy::ProxyConfig;
use netplan::view::{Key, ServiceView, SliceView};
use serde::de::DeserializeOwned;
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

fn key(object: &impl ResourceExt) -> Key {
    Key::new(object.namespace().unwrap_or_default(), object.name_any())
}

/// Watches all objects of one kind for ever. `sink` gets every object that came or went, and after each complete list
/// those that it no longer holds; `None` as key marks the end of such a list. Objects are decoded one by one, so that one
/// that does not fit its type hides no other.
async fn follow<K, F>(client: Client, mut sink: impl FnMut(Option<Key>, Option<K>) -> F)
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
    F: Future<Output = ()>,
{
    let api = Api::<DynamicObject>::all_with(client, &ApiResource::erase::<K>(&()));
    let mut known = BTreeSet::new();
    let mut listed: Option<BTreeSet<Key>> = None;
    let mut events = std::pin::pin!(watcher::watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = Some(BTreeSet::new()),
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                let key = key(&object);
                if let Some(listed) = &mut listed {
                    listed.insert(key.clone());
                }
                match object.try_parse::<K>() {
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

//! The list+watch loop behind an informer: pages, bookmarks, relist on 410, bounded backoff.

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::Client;
use kube::api::{ListParams, ObjectList, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::informer::Cached;
use crate::{ApiErrorExt, Backoff, Index, Informer, ObjectKey};

const PAGE_OBJECTS_MAX: u32 = 500;
const WATCH_SECONDS: u32 = 290;
/// A watch that shows no sign of life this long after its own timeout is a dead connection.
const WATCH_SILENCE_MAX: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 30);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Which collection to follow.
#[derive(Clone, Debug)]
pub struct InformerConfig {
    /// The collection's path: `/api/v1/pods`, `/apis/apps/v1/namespaces/a/deployments`.
    pub url_path: String,
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    /// Ask for PartialObjectMetadata instead of whole objects.
    pub metadata_only: bool,
}

impl InformerConfig {
    /// Everything of one collection.
    pub fn all(url_path: impl Into<String>) -> Self {
        Self { url_path: url_path.into(), label_selector: None, field_selector: None, metadata_only: false }
    }

    #[must_use]
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.field_selector = Some(selector.into());
        self
    }

    #[must_use]
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.label_selector = Some(selector.into());
        self
    }

    #[must_use]
    pub fn metadata_only(mut self) -> Self {
        self.metadata_only = true;
        self
    }
}

impl<V: Send + Sync + 'static> Informer<V> {
    /// Starts to follow a collection until `stop`; objects of type `K` are decoded, projected to `V` and dropped.
    pub fn start<K>(
        client: Client,
        config: InformerConfig,
        project: fn(K) -> V,
        indexes: &[Index<V>],
        stop: CancellationToken,
    ) -> Self
    where
        K: kube::Resource + DeserializeOwned + Clone + Debug + Send + 'static,
    {
        let informer = Self::empty(indexes);
        let reflector = Reflector { client, config, project, informer: informer.clone() };
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = reflector.run() => {}
            }
        });
        informer
    }
}

/// A list before its objects are decoded.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Value>,
}

/// What Go writes for a time that was never set, where it does not write null.
const UNSET_TIME: &str = "0001-01-01T00:00:00Z";

/// Conditions from Go clients may carry `lastTransitionTime: null`, which the typed form does not know.
fn settle_times(object: &mut Value) {
    let conditions = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(time) = condition.get_mut("lastTransitionTime").filter(|time| time.is_null()) {
            *time = UNSET_TIME.into();
        }
    }
}

/// A page of a list. Where an object does not fit the type, the others still count.
fn decode_page<K: DeserializeOwned + Clone>(path: &str, text: &str) -> kube::Result<(ListMeta, Vec<K>)> {
    if let Ok(page) = serde_json::from_str::<ObjectList<K>>(text) {
        return Ok((page.metadata, page.items));
    }
    let page: Page = serde_json::from_str(text).map_err(kube::Error::SerdeError)?;
    let decoded = page.items.into_iter().filter_map(|mut object| {
        settle_times(&mut object);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        serde_json::from_value(object)
            .inspect_err(|error| tracing::error!(path, name, %error, "leaving out an undecodable object"))
            .ok()
    });
    Ok((page.metadata, decoded.collect()))
}

/// Whether an event did not fit its type. The client takes such a line for a Status, which then says nothing.
fn is_undecodable(error: &kube::Error) -> bool {
    match error {
        kube::Error::SerdeError(_) => true,
        kube::Error::Api(status) => status.code == 0 && status.reason.is_empty() && status.message.is_empty(),
        _ => false,
    }
}

struct Reflector<K, V> {
    client: Client,
    config: InformerConfig,
    project: fn(K) -> V,
    informer: Informer<V>,
}

/// Why a watch ended.
enum WatchEnd {
    /// Go on from this resourceVersion.
    Resume(String),
    /// The history is gone: list again.
    Relist,
}

impl<K, V> Reflector<K, V>
where
    K: kube::Resource + DeserializeOwned + Clone + Debug + Send + 'static,
    V: Send + Sync + 'static,
{
    async fn run(self) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        loop {
            let mut version = match self.list().await {
                Ok(version) => version,
                Err(error) => {
                    let delay = backoff.next_delay();
                    tracing::warn!(path = %self.config.url_path, %error, ?delay, "list failed, trying again");
                    tokio::time::sleep(delay).await;
                    continue;
                }
            };
            loop {
                let started = tokio::time::Instant::now();
                match self.watch(&version).await {
                    Ok(WatchEnd::Resume(next)) => {
                        // A server that closes each watch at once must not be hammered.
                        if next != version || started.elapsed() > RETRY_MAX {
                            backoff.reset();
                        } else {
                            tokio::time::sleep(backoff.next_delay()).await;
                        }
                        version = next;
                    }
                    Ok(WatchEnd::Relist) => break,
                    Err(error) if error.is_expired() => break,
                    Err(error) => {
                        let delay = backoff.next_delay();
                        tracing::debug!(path = %self.config.url_path, %error, ?delay, "watch failed, trying again");
                        tokio::time::sleep(delay).await;
                    }
                }
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    async fn list(&self) -> kube::Result<String> {
        let mut objects = Vec::new();
        let mut params = ListParams {
            label_selector: self.config.label_selector.clone(),
            field_selector: self.config.field_selector.clone(),
            limit: Some(PAGE_OBJECTS_MAX),
            ..ListParams::default()
        };
        loop {
            let request = Request::new(&self.config.url_path);
            let request =
                if self.config.metadata_only { request.list_metadata(&params) } else { request.list(&params) };
            let text = self.client.request_text(request.map_err(kube::Error::BuildRequest)?).await?;
            let (metadata, items) = decode_page::<K>(&self.config.url_path, &text)?;
            objects.extend(items.into_iter().map(|object| self.project(object)));
            params.continue_token = metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                let version = metadata.resource_version.unwrap_or_default();
                self.informer.replace(objects, version.parse().unwrap_or(0));
                return Ok(version);
            }
        }
    }

    async fn watch(&self, version: &str) -> kube::Result<WatchEnd> {
        let params = WatchParams {
            label_selector: self.config.label_selector.clone(),
            field_selector: self.config.field_selector.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = Request::new(&self.config.url_path);
        let request = if self.config.metadata_only {
            request.watch_metadata(&params, version)
        } else {
            request.watch(&params, version)
        };
        let events = self.client.request_events::<K>(request.map_err(kube::Error::BuildRequest)?).await?;
        let mut events = std::pin::pin!(events);
        let mut version = version.to_owned();
        while let Ok(Some(event)) = tokio::time::timeout(WATCH_SILENCE_MAX, events.next()).await {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    let cached = self.project(object);
                    version.clone_from(&cached.resource_version);
                    let key = cached.key.clone();
                    self.informer.apply(&key, Some(cached));
                }
                Ok(WatchEvent::Deleted(object)) => {
                    let meta = object.meta();
                    version = meta.resource_version.clone().unwrap_or(version);
                    let key = ObjectKey::new(
                        meta.namespace.clone().unwrap_or_default(),
                        meta.name.clone().unwrap_or_default(),
                    );
                    self.informer.apply(&key, None);
                }
                Ok(WatchEvent::Bookmark(bookmark)) => version = bookmark.metadata.resource_version,
                Ok(WatchEvent::Error(status)) if status.code == 410 => return Ok(WatchEnd::Relist),
                Ok(WatchEvent::Error(status)) => return Err(kube::Error::Api(status)),
                Err(error) if error.is_expired() => return Ok(WatchEnd::Relist),
                Err(error) if is_undecodable(&error) => {
                    // One undecodable object must not blind us to the others; a list takes it or leaves it out.
                    tracing::warn!(path = %self.config.url_path, %error, "undecodable watch event, listing again");
                    return Ok(WatchEnd::Relist);
                }
                Err(error) => {
                    tracing::debug!(path = %self.config.url_path, %error, "watch interrupted");
                    break;
                }
            }
            if let Ok(revision) = version.parse() {
                self.informer.saw(revision);
            }
        }
        Ok(WatchEnd::Resume(version))
    }

    fn project(&self, object: K) -> Cached<V> {
        // Only identity is taken from the metadata before the projection consumes the object.
        let meta = object.meta();
        let identity = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            deletion_timestamp: meta.deletion_timestamp.clone(),
            owner_references: meta.owner_references.clone(),
            ..Default::default()
        };
        Cached::new(&identity, (self.project)(object))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::*;

    #[test]
    fn one_odd_object_hides_no_other() {
        let service =
            |name: &str, condition: Value| json!({"metadata": {"name": name}, "status": {"conditions": [condition]}});
        let unset = json!({"type": "T", "status": "True", "reason": "R", "message": "", "lastTransitionTime": null});
        let items = [service("a", unset), service("b", json!("no condition")), json!({"metadata": {"name": "c"}})];
        let list = json!({"metadata": {"resourceVersion": "7"}, "items": items});
        let (metadata, services) = decode_page::<Service>("/api/v1/services", &list.to_string()).unwrap();
        assert_eq!(metadata.resource_version.as_deref(), Some("7"));
        let names: Vec<_> = services.iter().filter_map(|service| service.metadata.name.as_deref()).collect();
        assert_eq!(names, ["a", "c"]);
        assert!(decode_page::<Service>("/api/v1/services", "nonsense").is_err());
    }

    #[test]
    fn an_event_of_the_wrong_shape_is_told_from_an_answer() {
        assert!(is_undecodable(&kube::Error::Api(Box::default())));
        let gone = kube::core::Status { code: 410, reason: "Expired".to_owned(), ..Default::default() };
        assert!(!is_undecodable(&kube::Error::Api(Box::new(gone))));
    }
}

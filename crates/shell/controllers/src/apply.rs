//! Applies plans through the API and waits until the caches show what was written: every reconcile reads its own writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use client::{ApiErrorExt, EventKind, Informer, ObjectKey, Recorder};
use futures::StreamExt;
use futures::future::BoxFuture;
use kube::Client;
use kube::api::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::Request;
use reconcile::plan::{JOBS, Note, Op, PatchKind, Plan, Resource, Step, merge};
use serde_json::Value;

/// Writes of one batch in flight at once.
const PARALLEL_WRITES_MAX: usize = 32;
/// The first batch of a slow start; each following one doubles.
const SLOW_START_WRITES: usize = 1;
/// A cache that lags longer than this is not waited for: the next reconcile may then repeat a write, never lose one.
const CACHE_LAG_MAX: Duration = Duration::from_secs(10);

/// A write that failed, with enough to decide what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {kind} {key}")]
pub(crate) struct ApplyError {
    pub verb: &'static str,
    pub kind: &'static str,
    pub key: ObjectKey,
    #[source]
    pub source: kube::Error,
}

/// What the cache has to show before a key is worked on again.
pub(crate) enum Written {
    Revision(Resource, u64),
    Gone(Resource, ObjectKey, String),
}

/// A cache that can be waited for.
pub(crate) trait Tracker: Send + Sync {
    fn reached<'a>(&'a self, written: &'a Written) -> BoxFuture<'a, bool>;
}

impl<V: Send + Sync + 'static> Tracker for Informer<V> {
    fn reached<'a>(&'a self, written: &'a Written) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            match written {
                Written::Revision(_, revision) => Informer::reached(self, *revision, CACHE_LAG_MAX).await,
                Written::Gone(_, key, uid) => self.gone(key, uid, CACHE_LAG_MAX).await,
            }
        })
    }
}

/// Writes for one controller.
pub(crate) struct Writer {
    client: Client,
    recorder: Recorder,
    trackers: Vec<(Resource, Arc<dyn Tracker>)>,
    unseen: AtomicU64,
}

impl Writer {
    pub fn new(client: Client, recorder: Recorder) -> Self {
        Self { client, recorder, trackers: Vec::new(), unseen: AtomicU64::new(0) }
    }

    /// Waits for this cache after writes of `resource`.
    pub fn track<V: Send + Sync + 'static>(mut self, resource: Resource, informer: &Informer<V>) -> Self {
        self.trackers.push((resource, Arc::new(informer.clone())));
        self
    }

    /// The newest own write that a cache did not show in time; a cache older than this must not be counted from.
    pub fn unseen(&self) -> u64 {
        self.unseen.load(Ordering::Relaxed)
    }

    /// Applies a plan: steps in order, then the batch in slow start. The first failure ends it; what was written before
    /// is waited for in either case.
    pub async fn apply(&self, plan: &Plan) -> Result<(), ApplyError> {
        for note in &plan.notes {
            self.note(note, "", "");
        }
        let mut written = Vec::new();
        let result = self.apply_steps(plan, &mut written).await;
        for write in &written {
            self.wait_for(write).await;
        }
        result
    }

    async fn apply_steps(&self, plan: &Plan, written: &mut Vec<Written>) -> Result<(), ApplyError> {
        for step in &plan.steps {
            written.extend(self.step(step).await?);
        }
        let (mut rest, mut size) = (plan.batch.as_slice(), SLOW_START_WRITES);
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            // Collected first: a closure that borrows inside the stream would make this future not `Send` in general.
            let mut writes = Vec::with_capacity(batch.len());
            for step in batch {
                writes.push(self.step(step));
            }
            let results: Vec<_> = futures::stream::iter(writes).buffer_unordered(PARALLEL_WRITES_MAX).collect().await;
            let mut failure = None;
            for result in results {
                match result {
                    Ok(write) => written.extend(write),
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
            (rest, size) = (later, size * 2);
        }
        Ok(())
    }

    async fn step(&self, step: &Step) -> Result<Option<Written>, ApplyError> {
        let result = self.write(&step.op).await;
        match &result {
            Ok(done) => {
                if let (Some(note), Some((name, _))) = (&step.done, done) {
                    self.note(note, name, "");
                }
            }
            // A taken name is looked into by whoever asked for it.
            Err(error) if error.source.is_namespace_terminating() || error.source.is_conflict() => {}
            Err(error) if error.source.is_already_exists() => {}
            Err(error) => {
                if let Some(note) = &step.failed {
                    self.note(note, "", &error.source.api_message());
                }
            }
        }
        result.map(|done| done.and_then(|(_, written)| written))
    }

    /// Name and effect of a write; `None` when there was nothing left to do.
    async fn write(&self, op: &Op) -> Result<Option<(String, Option<Written>)>, ApplyError> {
        let resource = op.resource();
        match op {
            Op::Create { namespace, object, .. } => {
                let body = object.to_string().into_bytes();
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let request = collection(resource, namespace).create(&PostParams::default(), body);
                let answer = self.send(request).await.map_err(fault("create", resource, namespace, name))?;
                Ok(Some((name_of(&answer), revision(resource, &answer))))
            }
            Op::Patch { namespace, name, subresource, kind, body, .. } => {
                let (params, path) = (PatchParams::default(), collection(resource, namespace));
                let patch = match kind {
                    PatchKind::Update => return self.update(resource, namespace, name, *subresource, body).await,
                    PatchKind::Merge => Patch::Merge(body),
                    PatchKind::Strategic => Patch::Strategic(body),
                };
                let request = match subresource {
                    Some(subresource) => path.patch_subresource(subresource, name, &params, &patch),
                    None => path.patch(name, &params, &patch),
                };
                let answer = self.send(request).await.map_err(fault("patch", resource, namespace, name))?;
                Ok(Some((name_of(&answer), revision(resource, &answer))))
            }
            Op::Delete { namespace, name, uid, grace, .. } => {
                let params = DeleteParams {
                    preconditions: uid.clone().map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
                    grace_period_seconds: grace.map(|grace| u32::try_from(grace).unwrap_or(0)),
                    // Where nothing else is said, a deleted Job leaves its pods behind.
                    propagation_policy: (resource == JOBS).then_some(PropagationPolicy::Background),
                    ..DeleteParams::default()
                };
                match self.send(collection(resource, namespace).delete(name, &params)).await {
                    Ok(_) => {
                        let key = ObjectKey::new(namespace, name);
                        let gone = uid.clone().map(|uid| Written::Gone(resource, key, uid));
                        Ok(Some((name.clone(), gone)))
                    }
                    // Gone already, or replaced by another incarnation: either way nothing is left to delete.
                    Err(error) if error.is_not_found() || (uid.is_some() && error.is_conflict()) => Ok(None),
                    Err(error) => Err(fault("delete", resource, namespace, name)(error)),
                }
            }
        }
    }

    /// Reads the object, merges the difference in and writes it back; a conflict is retried with the key.
    async fn update(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        difference: &Value,
    ) -> Result<Option<(String, Option<Written>)>, ApplyError> {
        let path = collection(resource, namespace);
        let read = path.get(name, &GetParams::default());
        let mut object = self.send(read).await.map_err(fault("get", resource, namespace, name))?;
        // A uid or resourceVersion in the difference replaces the live one: then the server refuses a stale write.
        merge(&mut object, difference);
        let (params, body) = (PostParams::default(), object.to_string().into_bytes());
        let request = match subresource {
            Some(subresource) => path.replace_subresource(subresource, name, &params, body),
            None => path.replace(name, &params, body),
        };
        let answer = self.send(request).await.map_err(fault("update", resource, namespace, name))?;
        Ok(Some((name_of(&answer), revision(resource, &answer))))
    }

    async fn send(&self, request: Result<http::Request<Vec<u8>>, kube::core::request::Error>) -> kube::Result<Value> {
        self.client.request(request.map_err(kube::Error::BuildRequest)?).await
    }

    async fn wait_for(&self, written: &Written) {
        let (Written::Revision(resource, _) | Written::Gone(resource, ..)) = written;
        for (tracked, tracker) in &self.trackers {
            if tracked == resource && !tracker.reached(written).await {
                tracing::warn!(resource = resource.plural, "the cache does not show an own write in time");
                if let Written::Revision(_, revision) = written {
                    self.unseen.fetch_max(*revision, Ordering::Relaxed);
                }
            }
        }
    }

    fn note(&self, note: &Note, name: &str, error: &str) {
        let kind = if note.warning { EventKind::Warning } else { EventKind::Normal };
        let message = note.message.replace("{name}", name).replace("{error}", error);
        self.recorder.record(&note.about, kind, note.reason, message);
    }
}

/// The collection's path builder.
pub(crate) fn collection(resource: Resource, namespace: &str) -> Request {
    let root = if resource.api_version.contains('/') { "/apis" } else { "/api" };
    let scope = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
    Request::new(format!("{root}/{}{scope}/{}", resource.api_version, resource.plural))
}

fn fault(
    verb: &'static str,
    resource: Resource,
    namespace: &str,
    name: &str,
) -> impl FnOnce(kube::Error) -> ApplyError + use<> {
    let key = ObjectKey::new(namespace, name);
    move |source| ApplyError { verb, kind: resource.kind, key, source }
}

fn name_of(answer: &Value) -> String {
    answer["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn revision(resource: Resource, answer: &Value) -> Option<Written> {
    let revision = answer["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
    Some(Written::Revision(resource, revision))
}

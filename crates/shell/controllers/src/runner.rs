//! The generic loop of a controller: keys from a queue, N workers, backoff on error, panics isolated and counted.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{ApiErrorExt, Hub, ObjectKey, Queue, QueueConfig, Recorder};
use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::apply::{ApplyError, Writer};

const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How often a controller's reconciles ended how.
#[derive(Debug, Default)]
pub struct Metrics {
    pub reconciles: AtomicU64,
    pub errors: AtomicU64,
    pub panics: AtomicU64,
}

/// What every controller of a process shares.
#[derive(Clone)]
pub struct Context {
    pub config: Arc<Config>,
    pub hub: Hub,
    pub stop: CancellationToken,
    metrics: Arc<Mutex<BTreeMap<&'static str, Arc<Metrics>>>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// Why a reconcile did not succeed; all are tried again, later each time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("reading from the API server")]
    Read(#[from] kube::Error),
}

/// When to look at the key again without a change; `None`: only on changes.
pub(crate) type Outcome = Result<Option<Duration>, ReconcileError>;

impl Context {
    pub(crate) fn new(config: Config, hub: Hub, stop: CancellationToken) -> Self {
        let (metrics, tasks) = (Arc::default(), Arc::new(Mutex::new(JoinSet::new())));
        Self { config: Arc::new(config), hub, stop, metrics, tasks }
    }

    /// The queue of a controller; it ends with the process.
    pub(crate) fn queue(&self) -> Queue<ObjectKey> {
        Queue::new(QueueConfig { retry_min: RETRY_MIN, retry_max: RETRY_MAX })
    }

    /// A writer whose events come from `component`.
    pub(crate) fn writer(&self, component: &str) -> Writer {
        let client = self.hub.client().clone();
        Writer::new(client.clone(), Recorder::new(client, component, None))
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }

    /// Starts the workers of a controller once `ready` (its caches are filled).
    pub(crate) fn work<F, R>(
        &self,
        name: &'static str,
        queue: &Queue<ObjectKey>,
        ready: impl Future<Output = ()> + Send + 'static,
        reconcile: F,
    ) where
        F: Fn(ObjectKey) -> R + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        let metrics = Arc::<Metrics>::default();
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner).insert(name, metrics.clone());
        let (reconcile, queue, context) = (Arc::new(reconcile), queue.clone(), self.clone());
        let closing = queue.clone();
        let stop = self.stop.clone();
        self.spawn(async move {
            stop.cancelled().await;
            closing.shutdown();
        });
        self.spawn(async move {
            tokio::select! {
                () = ready => {}
                () = context.stop.cancelled() => return,
            }
            for _ in 0..context.config.workers_max.max(1) {
                let (reconcile, queue, metrics) = (reconcile.clone(), queue.clone(), metrics.clone());
                context.spawn(async move {
                    while let Some(key) = queue.next().await {
                        attempt(name, &*reconcile, &queue, &metrics, key).await;
                    }
                });
            }
        });
    }

    /// Counters per controller.
    pub fn metrics(&self) -> BTreeMap<&'static str, Arc<Metrics>> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the workers to end after `stop`.
    pub(crate) async fn finished(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }
}

async fn attempt<F, R>(name: &str, reconcile: &F, queue: &Queue<ObjectKey>, metrics: &Metrics, key: ObjectKey)
where
    F: Fn(ObjectKey) -> R,
    R: Future<Output = Outcome>,
{
    metrics.reconciles.fetch_add(1, Ordering::Relaxed);
    let work = AssertUnwindSafe(async { reconcile(key.clone()).await });
    match work.catch_unwind().await {
        Ok(Ok(again)) => {
            queue.forget(&key);
            if let Some(after) = again {
                queue.add_after(key.clone(), after);
            }
        }
        Ok(Err(error)) => {
            metrics.errors.fetch_add(1, Ordering::Relaxed);
            fail(name, queue, &key, &error);
        }
        Err(_) => {
            metrics.panics.fetch_add(1, Ordering::Relaxed);
            let delay = queue.retry(key.clone());
            tracing::error!(controller = name, %key, ?delay, "the reconcile panicked; only this key is delayed");
        }
    }
    queue.done(&key);
}

fn fail(name: &str, queue: &Queue<ObjectKey>, key: &ObjectKey, error: &ReconcileError) {
    let cause = match error {
        ReconcileError::Apply(apply) => &apply.source,
        ReconcileError::Read(cause) => cause,
    };
    if cause.is_namespace_terminating() {
        // The namespace controller removes what is there; making more cannot succeed.
        queue.forget(key);
        return;
    }
    let delay = queue.retry(key.clone());
    if cause.is_conflict() || cause.is_not_found() || cause.is_already_exists() {
        tracing::debug!(controller = name, %key, %error, cause = %cause.api_message(), ?delay, "outrun, again");
    } else {
        tracing::warn!(controller = name, %key, %error, cause = %cause.api_message(), ?delay, "failed, again");
    }
}

//! Jobs: wakes the Job of a changed pod, manages its pods, then counts those that ended; frees pods that no Job counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use client::{ApiErrorExt, Cached, Informer, ObjectKey, Queue};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use reconcile::PodView;
use reconcile::job::backoff::Backoff;
use reconcile::job::{State, is_finished, is_managed_elsewhere, orphans};
use reconcile::ownership::{reference, selector_of};
use reconcile::plan::{JOBS, Note, PODS, Plan};

use crate::apply::Writer;
use crate::runner::{Context, Outcome, ReconcileError};
use crate::sources::{BY_OWNER, Jobs, ORPHANS, Pods};

const NAME: &str = "job-controller";
const ORPHANS_NAME: &str = "job-controller-orphans";
/// Changes of a Job's pods that come together are looked at together.
const PODS_BATCH: Duration = Duration::from_millis(50);
/// Rounds of writes on pods, and of counting, in one reconcile; what is left waits for the next.
const ROUNDS_MAX: usize = 6;
/// Between attempts to learn the revision that the caches have to reach.
const BARRIER_RETRY: Duration = Duration::from_secs(1);

struct Controller {
    jobs: Informer<Arc<Job>>,
    pods: Informer<Arc<PodView>>,
    writer: Writer,
    client: kube::Client,
    /// What reconciles remember of failures, with the Job's uid.
    backoffs: Mutex<HashMap<ObjectKey, (String, Backoff)>>,
    /// The store's revision when this controller started: what an earlier one counted, older caches do not show.
    barrier: OnceLock<u64>,
}

pub(crate) fn start(context: &Context) {
    let (jobs, pods) = (context.hub.informer::<Jobs>(), context.hub.informer::<Pods>());
    let queue = context.queue();
    let wake = queue.clone();
    jobs.subscribe(move |change| {
        if let Some(job) = change.latest() {
            wake.add(job.key.clone());
        }
    });
    let (wake, known) = (queue.clone(), jobs.clone());
    pods.subscribe(move |change| {
        for pod in change.sides() {
            wake_job_of(&wake, &known, pod);
        }
    });
    let writer = context.writer(NAME).track(PODS, &pods).track(JOBS, &jobs);
    let client = context.hub.client().clone();
    let (backoffs, barrier) = (Mutex::default(), OnceLock::new());
    let controller = Arc::new(Controller { jobs, pods, writer, client, backoffs, barrier });
    let caches = controller.clone();
    let ready = async move {
        caches.jobs.synced().await;
        caches.pods.synced().await;
        caches.learn_barrier().await;
    };
    context.work(NAME, &queue, ready, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
    start_orphans(context);
}

/// An owned pod wakes its Job; an orphan wakes every Job that could adopt it.
fn wake_job_of(queue: &Queue<ObjectKey>, jobs: &Informer<Arc<Job>>, pod: &Cached<Arc<PodView>>) {
    match &pod.controller {
        Some(owner) if owner.kind == JOBS.kind => {
            queue.add_after(ObjectKey::new(&pod.key.namespace, &owner.name), PODS_BATCH);
        }
        Some(_) => {}
        None => {
            for job in jobs.list_namespace(&pod.key.namespace) {
                let selector = job.spec.as_ref().and_then(|spec| selector_of(spec.selector.as_ref()?));
                if selector.is_some_and(|selector| selector.matches(&*pod.labels)) {
                    queue.add_after(job.key.clone(), PODS_BATCH);
                }
            }
        }
    }
}

impl Controller {
    async fn learn_barrier(&self) {
        let all: Api<Pod> = Api::all(self.client.clone());
        loop {
            match all.list_metadata(&ListParams::default().limit(1)).await {
                Ok(list) => {
                    let revision = list.metadata.resource_version.and_then(|version| version.parse().ok());
                    let _ = self.barrier.set(revision.unwrap_or(0));
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot learn the store's revision yet");
                    tokio::time::sleep(BARRIER_RETRY).await;
                }
            }
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let job = self.jobs.get_key(key);
        let Some(job) = job.filter(|job| !is_managed_elsewhere(job) && !is_finished(job)) else {
            self.backoffs.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            return Ok(None);
        };
        if let Some(mode) = unknown_mode(&job) {
            tracing::debug!(%key, mode, "unknown completion mode");
            let why = "Skipped Job sync because completion mode is unknown";
            let note = Note::warning(&reference(JOBS, &job.metadata), "UnknownCompletionMode", why);
            self.writer.apply(&Plan { notes: vec![note], ..Plan::default() }).await?;
            return Ok(None);
        }
        let managed = self.rounds(key, |state| state.manage()).await;
        // What ended is counted also when no pod can be made, for example for want of quota.
        self.rounds(key, |state| state.track()).await?;
        managed
    }

    /// Plans and applies until nothing is left to do, each time from what the caches show by then.
    async fn rounds(&self, key: &ObjectKey, next: fn(&State<'_>) -> Plan) -> Outcome {
        for _ in 0..ROUNDS_MAX {
            let Some(job) = self.jobs.get_key(key) else { return Ok(None) };
            let Some(spec) = job.spec.as_ref() else { return Ok(None) };
            let candidates = self.candidates(&job).await?;
            let (plan, backoff) = {
                let state = State::new(&job, spec, &candidates, self.backoff(key, &job.uid), Timestamp::now());
                (next(&state), state.backoff())
            };
            if plan.is_empty() {
                return Ok(plan.requeue_after);
            }
            self.writer.apply(&plan).await?;
            if plan.steps.iter().any(|step| step.op.resource() == JOBS) {
                let mut backoffs = self.backoffs.lock().unwrap_or_else(PoisonError::into_inner);
                backoffs.insert(key.clone(), (job.uid.clone(), backoff));
            }
        }
        Ok(Some(PODS_BATCH))
    }

    fn backoff(&self, key: &ObjectKey, uid: &str) -> Option<Backoff> {
        let backoffs = self.backoffs.lock().unwrap_or_else(PoisonError::into_inner);
        backoffs.get(key).filter(|(of, _)| of == uid).map(|(_, backoff)| *backoff)
    }

    /// Pods this Job owns, and those of its namespace that nobody controls: from the cache, if that shows all that was
    /// counted before.
    async fn candidates(&self, job: &Cached<Arc<Job>>) -> Result<Vec<Arc<PodView>>, ReconcileError> {
        let needed = self.barrier.get().copied().unwrap_or(0).max(self.writer.unseen());
        if self.pods.revision().is_some_and(|revision| revision >= needed) {
            let owned = self.pods.by_index(BY_OWNER, &job.uid);
            let orphans = self.pods.by_index(ORPHANS, &job.key.namespace);
            return Ok(owned.iter().chain(&orphans).map(|pod| pod.view.clone()).collect());
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &job.key.namespace);
        let pods = api.list(&ListParams::default()).await?;
        let views = pods.items.into_iter().map(|pod| Arc::new(PodView::from_pod(pod)));
        Ok(views.filter(|pod| pod.controller().is_none_or(|owner| owner.uid == job.uid)).collect())
    }
}

fn unknown_mode(job: &Job) -> Option<&str> {
    let mode = job.spec.as_ref()?.completion_mode.as_deref()?;
    (!["NonIndexed", "Indexed"].contains(&mode)).then_some(mode)
}

/// Pods that keep the finalizer of a Job that is gone or over.
fn start_orphans(context: &Context) {
    let (jobs, pods) = (context.hub.informer::<Jobs>(), context.hub.informer::<Pods>());
    let queue = context.queue();
    let (wake, known) = (queue.clone(), jobs.clone());
    pods.subscribe(move |change| {
        if let Some(pod) = change.new.as_ref().filter(|pod| is_suspect(&known, pod)) {
            wake.add(pod.key.clone());
        }
    });
    let (wake, known) = (queue.clone(), pods.clone());
    jobs.subscribe(move |change| {
        let over = change.new.as_ref().is_none_or(|job| is_finished(job));
        if let Some(job) = change.latest().filter(|_| over) {
            for pod in known.by_index(BY_OWNER, &job.uid) {
                wake.add(pod.key.clone());
            }
        }
    });
    let writer = Arc::new(context.writer(NAME).track(PODS, &pods));
    let caches = (jobs.clone(), pods.clone());
    let ready = async move {
        caches.0.synced().await;
        caches.1.synced().await;
    };
    let client = context.hub.client().clone();
    context.work(ORPHANS_NAME, &queue, ready, move |key| {
        let pod = pods.get_key(&key).filter(|pod| is_suspect(&jobs, pod));
        let (writer, client) = (writer.clone(), client.clone());
        async move {
            let Some(pod) = pod else { return Ok(None) };
            // The cache may not show a Job that was made a moment ago; freeing its pod would lose a count.
            let live = match &pod.controller {
                Some(owner) => {
                    let api: Api<Job> = Api::namespaced(client, &key.namespace);
                    api.get_opt(&owner.name).await?
                }
                None => None,
            };
            match writer.apply(&orphans::plan(&pod, live.as_ref())).await {
                Err(error) if error.source.is_not_found() => Ok(None),
                other => other.map(|()| None).map_err(ReconcileError::from),
            }
        }
    });
}

fn is_suspect(jobs: &Informer<Arc<Job>>, pod: &Cached<Arc<PodView>>) -> bool {
    let job = pod.controller.as_ref().and_then(|owner| jobs.get(&pod.key.namespace, &owner.name));
    orphans::is_suspect(pod, job.as_deref().map(|job| &job.view))
}

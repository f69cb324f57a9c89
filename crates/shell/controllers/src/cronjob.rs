//! CronJobs: wakes them when they change, when one of their Jobs does, and when they are due.

use std::sync::Arc;

use client::{ApiErrorExt, Cached, Informer, ObjectKey, Queue};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::Api;
use reconcile::cronjob::{plan, until_next};
use reconcile::plan::{CRON_JOBS, JOBS};

use crate::apply::{ApplyError, Writer};
use crate::clock::ClockChanges;
use crate::runner::{Context, Outcome, ReconcileError};
use crate::sources::{BY_OWNER, CronJobs, Jobs};

const NAME: &str = "cronjob-controller";
/// Rounds of writes in one reconcile; what is left waits for the next.
const ROUNDS_MAX: usize = 4;

struct Controller {
    cron_jobs: Informer<Arc<CronJob>>,
    jobs: Informer<Arc<Job>>,
    writer: Writer,
    client: kube::Client,
    /// Where schedules without a zone of their own are meant.
    local: TimeZone,
}

pub(crate) fn start(context: &Context) {
    let (cron_jobs, jobs) = (context.hub.informer::<CronJobs>(), context.hub.informer::<Jobs>());
    let local = TimeZone::try_system().unwrap_or(TimeZone::UTC);
    let queue = context.queue();
    let (wake, zone) = (queue.clone(), local.clone());
    cron_jobs.subscribe(move |change| {
        let Some(cron_job) = &change.new else { return };
        let changed = change.old.as_ref().is_some_and(|old| times(old) != times(cron_job));
        match until_next(cron_job, &zone, Timestamp::now()).filter(|_| changed) {
            Some(wait) => wake.add_after(cron_job.key.clone(), wait),
            None => wake.add(cron_job.key.clone()),
        }
    });
    let wake = queue.clone();
    jobs.subscribe(move |change| {
        for job in change.sides() {
            if let Some(owner) = job.controller.as_ref().filter(|owner| owner.kind == CRON_JOBS.kind) {
                wake.add(ObjectKey::new(&job.key.namespace, &owner.name));
            }
        }
    });
    watch_clock(context, &queue, &cron_jobs);
    let writer = context.writer(NAME).track(CRON_JOBS, &cron_jobs).track(JOBS, &jobs);
    let client = context.hub.client().clone();
    let controller = Arc::new(Controller { cron_jobs, jobs, writer, client, local });
    let caches = controller.clone();
    let ready = async move {
        caches.cron_jobs.synced().await;
        caches.jobs.synced().await;
    };
    context.work(NAME, &queue, ready, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

/// A schedule is waited for by the time that passes; when the clock jumps, another one may be due.
fn watch_clock(context: &Context, queue: &Queue<ObjectKey>, cron_jobs: &Informer<Arc<CronJob>>) {
    let (wake, known, stop) = (queue.clone(), cron_jobs.clone(), context.stop.clone());
    context.spawn(async move {
        let watch = async {
            let changes = ClockChanges::new()?;
            loop {
                changes.next().await?;
                tracing::info!("the machine's clock was set: schedules are looked at again");
                known.list().iter().for_each(|cron_job| wake.add(cron_job.key.clone()));
            }
        };
        let ended: Option<std::io::Result<()>> = stop.run_until_cancelled(watch).await;
        if let Some(Err(error)) = ended {
            tracing::warn!(%error, "changes of the clock are not noticed before a schedule is due");
        }
    });
}

/// What says when the CronJob is due.
fn times(cron_job: &CronJob) -> (&str, Option<&str>) {
    (&cron_job.spec.schedule, cron_job.spec.time_zone.as_deref())
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        for _ in 0..ROUNDS_MAX {
            let Some(cron_job) = self.cron_jobs.get_key(key) else { return Ok(None) };
            let jobs = self.jobs_of(&cron_job).await?;
            let wanted = plan(&cron_job, &jobs, &self.local, Timestamp::now());
            match self.writer.apply(&wanted).await {
                Ok(()) if wanted.is_empty() => return Ok(wanted.requeue_after),
                Ok(()) => {}
                Err(error) if error.verb == "create" && error.source.is_already_exists() => {
                    let foreign = self.is_foreign(&cron_job, &error).await?;
                    // Somebody else has a Job of this name: this time is lost, the next one is not.
                    return if foreign { Ok(wanted.requeue_after) } else { Err(error.into()) };
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(std::time::Duration::ZERO))
    }

    /// The Jobs that the CronJob controls, and those that its status names: the API is asked for one that the cache
    /// does not show.
    async fn jobs_of(&self, cron_job: &Cached<Arc<CronJob>>) -> Result<Vec<Arc<Job>>, ReconcileError> {
        let owned = self.jobs.by_index(BY_OWNER, &cron_job.uid);
        let mut jobs: Vec<Arc<Job>> = owned.iter().map(|job| job.view.clone()).collect();
        for known in cron_job.status.iter().flat_map(|status| status.active.iter().flatten()) {
            if jobs.iter().any(|job| job.metadata.uid == known.uid) {
                continue;
            }
            let api: Api<Job> = Api::namespaced(self.client.clone(), &cron_job.key.namespace);
            let live = api.get_opt(known.name.as_deref().unwrap_or_default()).await?;
            jobs.extend(live.filter(|job| job.metadata.uid == known.uid).map(Arc::new));
        }
        Ok(jobs)
    }

    async fn is_foreign(&self, cron_job: &Cached<Arc<CronJob>>, error: &ApplyError) -> Result<bool, ReconcileError> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), &error.key.namespace);
        let live = api.get_opt(&error.key.name).await?;
        let owns = |job: &Job| {
            let mut owners = job.metadata.owner_references.iter().flatten();
            owners.any(|owner| owner.controller == Some(true) && owner.uid == cron_job.uid)
        };
        Ok(live.is_some_and(|job| !owns(&job)))
    }
}

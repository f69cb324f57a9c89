//! Removes finished Jobs, with their pods, when their `ttlSecondsAfterFinished` is over.

use std::sync::Arc;

use client::{ApiErrorExt, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, DeleteParams, Preconditions};
use reconcile::job::ttl::time_left;

use crate::runner::{Context, Outcome};
use crate::sources::Jobs;

const NAME: &str = "ttl-after-finished-controller";

pub(crate) fn start(context: &Context) {
    let jobs = context.hub.informer::<Jobs>();
    let queue = context.queue();
    let wake = queue.clone();
    jobs.subscribe(move |change| {
        if let Some(job) = change.new.as_ref().filter(|job| time_left(job, Timestamp::now()).is_some()) {
            wake.add(job.key.clone());
        }
    });
    let cache = jobs.clone();
    let ready = async move { cache.synced().await };
    let client = context.hub.client().clone();
    context.work(NAME, &queue, ready, move |key| {
        let (job, client) = (jobs.get_key(&key).map(|job| job.view.clone()), client.clone());
        async move { reconcile(&client, &key, job).await }
    });
}

async fn reconcile(client: &kube::Client, key: &ObjectKey, cached: Option<Arc<Job>>) -> Outcome {
    match cached.and_then(|job| time_left(&job, Timestamp::now())) {
        None => return Ok(None),
        Some(left) if !left.is_zero() => return Ok(Some(left)),
        Some(_) => {}
    }
    let api: Api<Job> = Api::namespaced(client.clone(), &key.namespace);
    // The cached TTL may be outdated: the live Job decides.
    let Some(job) = api.get_opt(&key.name).await? else { return Ok(None) };
    match time_left(&job, Timestamp::now()) {
        None => Ok(None),
        Some(left) if !left.is_zero() => Ok(Some(left)),
        Some(_) => {
            let preconditions = Preconditions { uid: job.metadata.uid, resource_version: None };
            match api.delete(&key.name, &DeleteParams::foreground().preconditions(preconditions)).await {
                Err(error) if error.is_not_found() => Ok(None),
                other => Ok(other.map(|_| None)?),
            }
        }
    }
}

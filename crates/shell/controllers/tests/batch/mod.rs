//! Jobs, CronJobs and disruption budgets in the day of a namespace.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Client;
use kube::api::{Api, EvictParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use testkit::{make, until};

use super::template;

fn job_template() -> Value {
    let mut template = template("job", "i:1");
    template["spec"]["restartPolicy"] = "Never".into();
    template
}

/// Ends the pods of a Job as its kubelets would; indexes in `failing` fail.
async fn end_pods(pods: &Api<Pod>, job: &str, failing: &[&str]) {
    let of = ListParams::default().labels(&format!("job-name={job}"));
    for pod in pods.list(&of).await.unwrap().items {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let index = labels.get("batch.kubernetes.io/job-completion-index").cloned().unwrap_or_default();
        let phase = if failing.contains(&index.as_str()) { "Failed" } else { "Succeeded" };
        let status = json!({ "status": { "phase": phase } });
        let name = pod.metadata.name.unwrap();
        let _ = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
    }
}

fn conditions(job: &Job) -> BTreeSet<String> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.status == "True").map(|condition| condition.type_.clone()).collect()
}

pub async fn jobs(client: &Client) {
    let (jobs, pods): (Api<Job>, Api<Pod>) =
        (Api::namespaced(client.clone(), "a"), Api::namespaced(client.clone(), "a"));
    let spec = json!({ "completions": 3, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 0,
        "template": job_template() });
    make(&jobs, json!({ "metadata": { "name": "indexed" }, "spec": spec })).await;
    let failed = until("the Job with a failing index", || async {
        end_pods(&pods, "indexed", &["1"]).await;
        jobs.get("indexed").await.ok().filter(|job| conditions(job).contains("Failed"))
    })
    .await;
    let status = failed.status.as_ref().unwrap();
    assert_eq!((status.succeeded, status.failed), (Some(2), Some(1)));
    assert_eq!(status.completed_indexes.as_deref(), Some("0,2"));
    assert_eq!(status.failed_indexes.as_deref(), Some("1"));
    for pod in pods.list(&ListParams::default().labels("job-name=indexed")).await.unwrap() {
        assert_eq!(pod.metadata.finalizers, None, "counted pods are free");
    }
    let spec = json!({ "ttlSecondsAfterFinished": 1, "template": job_template() });
    make(&jobs, json!({ "metadata": { "name": "brief" }, "spec": spec })).await;
    until("a finished Job goes after its time", || async {
        end_pods(&pods, "brief", &[]).await;
        let gone = jobs.get_opt("brief").await.ok()?.is_none();
        let left = pods.list(&ListParams::default().labels("job-name=brief")).await.ok()?.items.len();
        (gone && left == 0).then_some(())
    })
    .await;
    suspended(&jobs, &pods).await;
    orphaned(&jobs, &pods).await;
}

async fn suspended(jobs: &Api<Job>, pods: &Api<Pod>) {
    let spec = json!({ "suspend": true, "template": job_template() });
    make(jobs, json!({ "metadata": { "name": "paused" }, "spec": spec })).await;
    until("the Job pauses", || async {
        conditions(&jobs.get("paused").await.ok()?).contains("Suspended").then_some(())
    })
    .await;
    super::merge(jobs, "paused", json!({ "spec": { "suspend": false } })).await;
    until("the Job goes on", || async {
        end_pods(pods, "paused", &[]).await;
        conditions(&jobs.get("paused").await.ok()?).contains("Complete").then_some(())
    })
    .await;
}

/// A Job that is deleted leaves its pods behind where nothing else is said, and they are free.
async fn orphaned(jobs: &Api<Job>, pods: &Api<Pod>) {
    make(jobs, json!({ "metadata": { "name": "left" }, "spec": { "template": job_template() } })).await;
    let of = ListParams::default().labels("job-name=left");
    until("its pod", || async { (pods.list(&of).await.ok()?.items.len() == 1).then_some(()) }).await;
    jobs.delete("left", &kube::api::DeleteParams::default()).await.unwrap();
    until("the pod stays and belongs to nobody", || async {
        let pod = pods.list(&of).await.ok()?.items.pop()?;
        (pod.metadata.finalizers.is_none() && pod.metadata.owner_references.is_none()).then_some(())
    })
    .await;
}

pub async fn cron_jobs(client: &Client) {
    let (cron_jobs, jobs): (Api<CronJob>, Api<Job>) =
        (Api::namespaced(client.clone(), "a"), Api::namespaced(client.clone(), "a"));
    let spec = json!({ "schedule": "@every 1s", "jobTemplate": { "spec": { "template": job_template() } } });
    make(&cron_jobs, json!({ "metadata": { "name": "often" }, "spec": spec })).await;
    let active =
        until("the CronJob starts a Job", || async { cron_jobs.get("often").await.ok()?.status?.active?.pop() }).await;
    let job = jobs.get(active.name.as_deref().unwrap()).await.unwrap();
    assert_eq!((job.metadata.uid, job.metadata.owner_references.unwrap()[0].kind.as_str()), (active.uid, "CronJob"));
    cron_jobs.delete("often", &kube::api::DeleteParams::default()).await.unwrap();
}

pub async fn budgets(client: &Client) {
    let (budgets, pods): (Api<PodDisruptionBudget>, Api<Pod>) =
        (Api::namespaced(client.clone(), "a"), Api::namespaced(client.clone(), "a"));
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "a");
    let spec =
        json!({ "replicas": 3, "selector": { "matchLabels": { "app": "safe" } }, "template": template("safe", "i:1") });
    make(&deployments, json!({ "metadata": { "name": "safe" }, "spec": spec })).await;
    let spec = json!({ "minAvailable": "50%", "selector": { "matchLabels": { "app": "safe" } } });
    make(&budgets, json!({ "metadata": { "name": "safe" }, "spec": spec })).await;
    until("the budget knows its pods", || async {
        let status = budgets.get("safe").await.ok()?.status?;
        let numbers = [status.expected_pods, status.desired_healthy, status.disruptions_allowed];
        (numbers == [Some(3), Some(2), Some(1)]).then_some(())
    })
    .await;
    let names = || async {
        let list = pods.list(&ListParams::default().labels("app=safe")).await.unwrap();
        list.items.into_iter().filter_map(|pod| pod.metadata.name).collect::<Vec<_>>()
    };
    let all = names().await;
    pods.evict(&all[0], &EvictParams::default()).await.unwrap();
    let kube::Error::Api(refused) = pods.evict(&all[1], &EvictParams::default()).await.unwrap_err() else {
        panic!("an API error")
    };
    assert_eq!(refused.code, 429);
    assert!(pods.get(&all[1]).await.unwrap().metadata.deletion_timestamp.is_none());
}

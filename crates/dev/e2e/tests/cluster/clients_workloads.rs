//! The official Rust client drives workloads: each kind made, scaled, updated, rolled back and deleted.

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Scope};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::clients::{connect, reached};

const NAMESPACE: &str = "kube-rs-workloads";

pub fn kube_rs(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, NAMESPACE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = connect(cluster).await?;
        deployment(&client).await.context("a Deployment")?;
        stateful_set(&client).await.context("a StatefulSet")?;
        daemon_set(&client).await.context("a DaemonSet")?;
        jobs(&client).await.context("Jobs")
    })?;
    scope.delete()
}

fn template(name: &str) -> Value {
    json!({"metadata": {"labels": {"app": name}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "demo", "image": "tug.local/demo:latest", "imagePullPolicy": "IfNotPresent", "env": [
            {"name": "ROUND", "value": "1"}]}]}})
}

fn object<K: DeserializeOwned>(name: &str, mut spec: Value) -> Result<K> {
    spec["selector"] = json!({"matchLabels": {"app": name}});
    spec["template"] = template(name);
    Ok(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?)
}

fn round(number: u32) -> Patch<Value> {
    let container = json!({"name": "demo", "env": [{"name": "ROUND", "value": number.to_string()}]});
    Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [container]}}}}))
}

async fn rounds(client: &Client, app: &str) -> Result<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let list = pods.list(&ListParams::default().labels(&format!("app={app}"))).await?;
    let alive = list.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let round = |pod: Pod| pod.spec?.containers.first()?.env.as_ref()?.first()?.value.clone();
    Ok(alive.filter_map(round).collect())
}

/// Deletes in the foreground and waits until nothing is left.
async fn end<K>(api: Api<K>, client: &Client, name: &str) -> Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + Send + DeserializeOwned + 'static,
{
    api.delete(name, &DeleteParams::foreground()).await?;
    reached(api, name, |found: Option<&K>| found.is_none()).await?;
    ensure!(rounds(client, name).await?.is_empty(), "its pods went before it");
    Ok(())
}

async fn deployment(client: &Client) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let complete = |wanted: i32| {
        move |found: Option<&Deployment>| {
            found.is_some_and(|found| {
                let status = found.status.clone().unwrap_or_default();
                let counts = [status.replicas, status.updated_replicas, status.available_replicas];
                status.observed_generation == found.metadata.generation && counts == [Some(wanted); 3]
            })
        }
    };
    api.create(&PostParams::default(), &object("roll", json!({"replicas": 2}))?).await?;
    reached(api.clone(), "roll", complete(2)).await?;
    let params = PatchParams::default();
    api.patch_scale("roll", &params, &Patch::Merge(json!({"spec": {"replicas": 3}}))).await?;
    reached(api.clone(), "roll", complete(3)).await?;
    api.patch("roll", &params, &round(2)).await?;
    reached(api.clone(), "roll", complete(3)).await?;
    ensure!(rounds(client, "roll").await? == ["2"; 3]);
    // a rollback is the old ReplicaSet's template, without the label that tells ReplicaSets apart
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), NAMESPACE);
    let revision = |set: &ReplicaSet, number: &str| {
        set.annotations().get("deployment.kubernetes.io/revision").is_some_and(|found| found == number)
    };
    let all = sets.list(&ListParams::default().labels("app=roll")).await?.items;
    let first = all.iter().find(|set| revision(set, "1")).context("the first revision is kept")?;
    let mut old = serde_json::to_value(first.spec.as_ref().context("no spec")?.template.clone())?;
    old["metadata"]["labels"].as_object_mut().context("no labels")?.remove("pod-template-hash");
    let undo = json!([{"op": "replace", "path": "/spec/template", "value": old}]);
    api.patch("roll", &params, &Patch::Json::<()>(serde_json::from_value(undo)?)).await?;
    reached(api.clone(), "roll", complete(3)).await?;
    ensure!(rounds(client, "roll").await? == ["1"; 3]);
    let again = sets.get(&first.name_any()).await?;
    ensure!(revision(&again, "3"), "the old ReplicaSet is taken up again: {:?}", again.annotations());
    end(api, client, "roll").await
}

/// What the revision of that number holds: the patch that leads back to it.
async fn revision_data(client: &Client, app: &str, number: i64) -> Result<Value> {
    let revisions: Api<ControllerRevision> = Api::namespaced(client.clone(), NAMESPACE);
    let all = revisions.list(&ListParams::default().labels(&format!("app={app}"))).await?.items;
    let found = all.into_iter().find(|revision| revision.revision == number).context("no such revision")?;
    Ok(found.data.context("an empty revision")?.0)
}

async fn stateful_set(client: &Client) -> Result<()> {
    let api: Api<StatefulSet> = Api::namespaced(client.clone(), NAMESPACE);
    let complete = |wanted: i32| {
        move |found: Option<&StatefulSet>| {
            found.is_some_and(|found| {
                let status = found.status.clone().unwrap_or_default();
                status.observed_generation == found.metadata.generation
                    && [status.updated_replicas, status.available_replicas] == [Some(wanted); 2]
                    && status.current_revision == status.update_revision
                    && status.replicas == wanted
            })
        }
    };
    let params = PatchParams::default();
    api.create(&PostParams::default(), &object("names", json!({"serviceName": "names", "replicas": 2}))?).await?;
    reached(api.clone(), "names", complete(2)).await?;
    api.patch_scale("names", &params, &Patch::Merge(json!({"spec": {"replicas": 3}}))).await?;
    reached(api.clone(), "names", complete(3)).await?;
    api.patch("names", &params, &round(2)).await?;
    reached(api.clone(), "names", complete(3)).await?;
    ensure!(rounds(client, "names").await? == ["2"; 3]);
    api.patch("names", &params, &Patch::Strategic(revision_data(client, "names", 1).await?)).await?;
    let settled = reached(api.clone(), "names", complete(3)).await?.and_then(|set| set.status).unwrap_or_default();
    ensure!(rounds(client, "names").await? == ["1"; 3], "{settled:?}");
    end(api, client, "names").await
}

async fn daemon_set(client: &Client) -> Result<()> {
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
    let complete = |found: Option<&DaemonSet>| {
        found.is_some_and(|found| {
            let status = found.status.clone().unwrap_or_default();
            status.observed_generation == found.metadata.generation
                && status.desired_number_scheduled == 3
                && [status.updated_number_scheduled, status.number_available] == [Some(3); 2]
        })
    };
    let params = PatchParams::default();
    api.create(&PostParams::default(), &object("each", json!({}))?).await?;
    reached(api.clone(), "each", complete).await?;
    api.patch("each", &params, &round(2)).await?;
    reached(api.clone(), "each", complete).await?;
    ensure!(rounds(client, "each").await? == ["2"; 3]);
    api.patch("each", &params, &Patch::Strategic(revision_data(client, "each", 1).await?)).await?;
    reached(api.clone(), "each", complete).await?;
    ensure!(rounds(client, "each").await? == ["1"; 3]);
    end(api, client, "each").await
}

async fn jobs(client: &Client) -> Result<()> {
    let api: Api<Job> = Api::namespaced(client.clone(), NAMESPACE);
    let job = json!({"parallelism": 2, "completions": 4, "suspend": true, "completionMode": "Indexed", "template": {
        "metadata": {"labels": {"app": "work"}}, "spec": {"restartPolicy": "Never", "containers": [
            {"name": "demo", "image": "tug.local/demo:latest", "imagePullPolicy": "IfNotPresent",
                "command": ["/demo", "exit", "0"]}]}}});
    let work: Job = serde_json::from_value(json!({"metadata": {"name": "work"}, "spec": job.clone()}))?;
    api.create(&PostParams::default(), &work).await?;
    let has = |kind: &'static str| {
        move |found: Option<&Job>| {
            let conditions = found.and_then(|job| job.status.as_ref()?.conditions.as_ref());
            conditions.into_iter().flatten().any(|known| known.type_ == kind && known.status == "True")
        }
    };
    reached(api.clone(), "work", has("Suspended")).await?;
    let resume = Patch::Merge(json!({"spec": {"suspend": false, "parallelism": 4}}));
    api.patch("work", &PatchParams::default(), &resume).await?;
    let done = reached(api.clone(), "work", has("Complete")).await?.and_then(|job| job.status).unwrap_or_default();
    ensure!(done.succeeded == Some(4) && done.completed_indexes.as_deref() == Some("0-3"), "{done:?}");
    end(api.clone(), client, "work").await?;

    let crons: Api<CronJob> = Api::namespaced(client.clone(), NAMESPACE);
    let spec = json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job}});
    let cron: CronJob = serde_json::from_value(json!({"metadata": {"name": "yearly"}, "spec": spec}))?;
    crons.create(&PostParams::default(), &cron).await?;
    let last = Patch::Merge(json!({"status": {"lastScheduleTime": "2020-06-01T00:00:00Z"}}));
    crons.patch_status("yearly", &PatchParams::default(), &last).await?;
    let active = |found: Option<&CronJob>| {
        found.and_then(|cron| cron.status.as_ref()?.active.as_ref()).is_some_and(|active| active.len() == 1)
    };
    reached(crons.clone(), "yearly", active).await.context("a missed year is made up for")?;
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    crons.delete("yearly", &foreground).await?;
    reached(crons, "yearly", |found: Option<&CronJob>| found.is_none()).await?;
    ensure!(api.list(&ListParams::default()).await?.items.is_empty(), "its Job went before it");
    Ok(())
}

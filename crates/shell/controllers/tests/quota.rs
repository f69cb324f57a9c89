//! The quota controller with a ReplicaSet that wants more than its namespace may have.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use apiserver::{Config, admission};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::{AllowAll, NobodyElse, TestServer, until};
use tokio_util::sync::{CancellationToken, DropGuard};

async fn start() -> (TestServer, DropGuard) {
    let mut config = Config::new(Arc::new(NobodyElse), Arc::new(AllowAll));
    config.admission.push(Arc::new(admission::quota::ResourceQuota::default()));
    let test = TestServer::start_with(config).await;
    let stop = CancellationToken::new();
    tokio::spawn(controllers::run(controllers::Config::default(), test.client.clone(), stop.clone()));
    (test, stop.drop_guard())
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Waits until the quota says that this much is used of what it limits.
async fn uses(quotas: &Api<ResourceQuota>, wanted: &[(&str, &str)]) {
    until(&format!("used {wanted:?}"), || async {
        let status = quotas.get("q").await.ok()?.status?;
        let used = status.used.unwrap_or_default();
        wanted.iter().all(|(name, amount)| used.get(*name).is_some_and(|used| used.0 == *amount)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_ends_is_given_back_and_a_denial_is_told() {
    let (test, _stop) = start().await;
    let quotas: Api<ResourceQuota> = Api::default_namespaced(test.client.clone());
    let hard = json!({"pods": "2", "count/configmaps": "9", "count/lights.example.com": "1"});
    let quota = object(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}));
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    uses(&quotas, &[("pods", "0")]).await;
    let sets: Api<ReplicaSet> = Api::default_namespaced(test.client.clone());
    let set = object(
        json!({"metadata": {"name": "web"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
    );
    sets.create(&PostParams::default(), &set).await.unwrap();
    uses(&quotas, &[("pods", "2")]).await;
    let failure = until("ReplicaFailure", || async {
        let conditions = sets.get("web").await.ok()?.status?.conditions?;
        conditions.into_iter().find(|condition| condition.type_ == "ReplicaFailure")
    })
    .await;
    assert_eq!((failure.status.as_str(), failure.reason.as_deref()), ("True", Some("FailedCreate")));
    let message = failure.message.unwrap();
    assert!(
        message.ends_with("is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"),
        "{message}"
    );
    // Fewer are wanted: room is given back, and nothing fails any more.
    sets.patch("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 1}}))).await.unwrap();
    uses(&quotas, &[("pods", "1")]).await;
    until("no ReplicaFailure", || async {
        let conditions = sets.get("web").await.ok()?.status?.conditions.unwrap_or_default();
        conditions.iter().all(|condition| condition.type_ != "ReplicaFailure").then_some(())
    })
    .await;
    // A finished pod counts no more.
    let pods: Api<Pod> = Api::default_namespaced(test.client.clone());
    let job = object(json!({"metadata": {"name": "job"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}));
    pods.create(&PostParams::default(), &job).await.unwrap();
    uses(&quotas, &[("pods", "2")]).await;
    pods.patch_status("job", &PatchParams::default(), &Patch::Merge(json!({"status": {"phase": "Succeeded"}})))
        .await
        .unwrap();
    uses(&quotas, &[("pods", "1")]).await;
    // Objects that exist already are found when the limits change.
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    let count = maps.list(&ListParams::default()).await.unwrap().items.len();
    maps.create(&PostParams::default(), &object(json!({"metadata": {"name": "m"}}))).await.unwrap();
    uses(&quotas, &[("count/configmaps", &(count + 1).to_string())]).await;
    maps.delete("m", &DeleteParams::default()).await.unwrap();
    uses(&quotas, &[("count/configmaps", &count.to_string())]).await;
    let hard = json!({"spec": {"hard": {"count/configmaps": null, "count/replicasets.apps": "4"}}});
    quotas.patch("q", &PatchParams::default(), &Patch::Merge(hard)).await.unwrap();
    uses(&quotas, &[("count/replicasets.apps", "1")]).await;
    let status = quotas.get("q").await.unwrap().status.unwrap();
    assert!(!status.used.unwrap().contains_key("count/configmaps"));
}

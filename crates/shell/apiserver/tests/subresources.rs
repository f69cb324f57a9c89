//! Subresources: scale, binding, eviction, status, finalize.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, EvictParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::json;
use testkit::{AllowAll, NobodyElse, TestServer};

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}))
    .unwrap()
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let test = TestServer::start().await;
    let pods: Api<Pod> = Api::default_namespaced(test.client.clone());
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"},
        "target": {"kind": "Node", "name": "n1"}});
    let parameters = PostParams::default();
    let bind = || pods.create_subresource::<_, serde_json::Value>("binding", "a", &parameters, &binding);
    assert_eq!(bind().await.unwrap()["status"], "Success");
    let bound = pods.get("a").await.unwrap();
    assert_eq!(bound.spec.unwrap().node_name.unwrap(), "n1");
    let kube::Error::Api(status) = bind().await.unwrap_err() else { panic!("an API error") };
    assert_eq!(status.code, 409);
    let expected = "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n1\"";
    assert_eq!(status.message, expected);
}

#[tokio::test]
async fn scale_reads_and_writes_replicas() {
    let test = TestServer::start().await;
    let deployments: Api<Deployment> = Api::default_namespaced(test.client.clone());
    let web: Deployment = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}))
    .unwrap();
    deployments.create(&PostParams::default(), &web).await.unwrap();
    let scale = deployments.get_scale("web").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(2));
    let patch = Patch::Merge(json!({"spec": {"replicas": 5}}));
    deployments.patch_scale("web", &PatchParams::default(), &patch).await.unwrap();
    let web = deployments.get("web").await.unwrap();
    assert_eq!(web.spec.unwrap().replicas, Some(5));
    assert_eq!(web.metadata.generation, Some(2));
}

#[tokio::test]
async fn a_budget_refuses_evictions() {
    let test = TestServer::start().await;
    let pods: Api<Pod> = Api::default_namespaced(test.client.clone());
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(test.client.clone());
    for name in ["a", "b"] {
        pods.create(&PostParams::default(), &pod(name)).await.unwrap();
        let running = Patch::Merge(json!({"status": {"phase": "Running"}}));
        pods.patch_status(name, &PatchParams::default(), &running).await.unwrap();
    }
    let budget: PodDisruptionBudget = serde_json::from_value(json!({"metadata": {"name": "pdb"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}}))
    .unwrap();
    budgets.create(&PostParams::default(), &budget).await.unwrap();
    let status = Patch::Merge(json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2}}));
    budgets.patch_status("pdb", &PatchParams::default(), &status).await.unwrap();
    pods.evict("a", &EvictParams::default()).await.unwrap();
    assert!(pods.get_opt("a").await.unwrap().is_none());
    let status = Patch::Merge(json!({"status": {"currentHealthy": 0, "disruptionsAllowed": 0}}));
    budgets.patch_status("pdb", &PatchParams::default(), &status).await.unwrap();
    let kube::Error::Api(status) = pods.evict("b", &EvictParams::default()).await.unwrap_err() else { panic!() };
    assert_eq!(status.code, 429);
    let cause = &status.details.unwrap().causes[0];
    assert_eq!(cause.message, "The disruption budget pdb needs 1 healthy pods and has 0 currently");
}

#[tokio::test]
async fn evictions_say_what_holds_them_back() {
    let test = TestServer::start().await;
    let pods: Api<Pod> = Api::default_namespaced(test.client.clone());
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(test.client.clone());
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    let running =
        Patch::Merge(json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}));
    pods.patch_status("a", &PatchParams::default(), &running).await.unwrap();
    let budget = |name: &str| -> PodDisruptionBudget {
        serde_json::from_value(json!({"metadata": {"name": name},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}}))
        .unwrap()
    };
    budgets.create(&PostParams::default(), &budget("pdb")).await.unwrap();
    let refused = || async {
        let kube::Error::Api(status) = pods.evict("a", &EvictParams::default()).await.unwrap_err() else { panic!() };
        let cause = status.details.as_ref().and_then(|details| Some(details.causes.first()?.message.clone()));
        (status.code, cause.unwrap_or_default())
    };
    let waits = "The disruption budget pdb is still being processed by the server.";
    assert_eq!(refused().await, (429, waits.to_owned()));
    let failed = json!({"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "no scale",
        "lastTransitionTime": "2030-01-01T00:00:00Z"});
    let status = json!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1,
        "expectedPods": 1, "conditions": [failed]});
    let status = Patch::Merge(json!({"status": status}));
    budgets.patch_status("pdb", &PatchParams::default(), &status).await.unwrap();
    let why = "The disruption budget pdb does not allow evicting pods currently because it failed sync: no scale";
    assert_eq!(refused().await, (429, why.to_owned()));
    let status = Patch::Merge(json!({"status": {"disruptionsAllowed": 1}}));
    budgets.patch_status("pdb", &PatchParams::default(), &status).await.unwrap();
    let dry =
        EvictParams { post_options: PostParams { dry_run: true, ..PostParams::default() }, ..EvictParams::default() };
    pods.evict("a", &dry).await.unwrap();
    assert_eq!(budgets.get("pdb").await.unwrap().status.unwrap().disruptions_allowed, Some(1));
    budgets.create(&PostParams::default(), &budget("other")).await.unwrap();
    assert_eq!(refused().await.0, 500);
    budgets.delete("other", &DeleteParams::default()).await.unwrap();
    pods.evict("a", &EvictParams::default()).await.unwrap();
    let spent = budgets.get("pdb").await.unwrap().status.unwrap();
    assert_eq!((spent.disruptions_allowed, spent.disrupted_pods.unwrap().len()), (Some(0), 1));
    assert_eq!(spent.conditions.unwrap()[0].reason, "InsufficientPods");
}

#[tokio::test]
async fn a_namespace_ends_when_it_is_finalized() {
    let test = TestServer::start().await;
    let namespaces: Api<Namespace> = Api::all(test.client.clone());
    let space: Namespace = serde_json::from_value(json!({"metadata": {"name": "x"}})).unwrap();
    namespaces.create(&PostParams::default(), &space).await.unwrap();
    namespaces.delete("x", &DeleteParams::default()).await.unwrap();
    let mut ending = namespaces.get("x").await.unwrap();
    ending.spec.as_mut().unwrap().finalizers = None;
    let _last: Namespace =
        namespaces.replace_subresource("finalize", "x", &PostParams::default(), &ending).await.unwrap();
    assert!(namespaces.get_opt("x").await.unwrap().is_none());
}

#[tokio::test]
async fn the_kubernetes_service_leads_to_the_advertised_address() {
    let mut config = apiserver::Config::new(Arc::new(NobodyElse), Arc::new(AllowAll));
    config.service_ip = Some("10.96.0.1".parse().unwrap());
    config.advertise = Some("192.0.2.1:6443".parse().unwrap());
    let test = TestServer::start_with(config).await;
    let services: Api<Service> = Api::default_namespaced(test.client.clone());
    let made = services.get("kubernetes").await.unwrap();
    assert_eq!(made.spec.unwrap().cluster_ip.unwrap(), "10.96.0.1");
    services.delete("kubernetes", &DeleteParams::default()).await.unwrap();
    let again = await_condition(services, "kubernetes", |service: Option<&Service>| {
        service.is_some_and(|service| service.metadata.uid != made.metadata.uid)
    });
    tokio::time::timeout(std::time::Duration::from_secs(10), again).await.expect("it comes back").unwrap();
    let mut config = apiserver::Config::new(Arc::new(NobodyElse), Arc::new(AllowAll));
    config.advertise = Some("192.0.2.2:6443".parse().unwrap());
    let moved = TestServer::start_over(config, test.store.clone()).await;
    let endpoints: Api<Endpoints> = Api::default_namespaced(moved.client.clone());
    let endpoints = endpoints.get("kubernetes").await.unwrap();
    assert_eq!(endpoints.subsets.unwrap()[0].addresses.as_ref().unwrap()[0].ip, "192.0.2.2");
}

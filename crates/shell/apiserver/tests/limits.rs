//! Quotas, limit ranges and priority classes at the door of the API server.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::sync::Arc;

use access::admission::service::Ranges;
use apiserver::{Config, admission};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, LimitRange, PersistentVolumeClaim, Pod, ResourceQuota, ServiceAccount};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use meta::address_range::Range;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::{AllowAll, NobodyElse, TestServer};

async fn start() -> TestServer {
    let network: IpAddr = [10, 98, 0, 0].into();
    let ranges = Ranges { addresses: vec![Range { network, prefix: 24 }], node_ports: (30000, 30001) };
    let mut config = Config::new(Arc::new(NobodyElse), Arc::new(AllowAll));
    config.admission = admission::builtin(ranges);
    config.admission.push(Arc::new(admission::quota::ResourceQuota::default()));
    let test = TestServer::start_with(config).await;
    make::<ServiceAccount>(&test, json!({"metadata": {"name": "default"}})).await.unwrap();
    test
}

/// The created object, or what the server says against it.
async fn make<K>(test: &TestServer, object: Value) -> Result<K, String>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    let api: Api<K> = Api::default_namespaced(test.client.clone());
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.map_err(message)
}

fn message(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => panic!("not an API error: {other}"),
    }
}

/// A quota whose status a controller has confirmed.
async fn quota(test: &TestServer, name: &str, spec: Value) -> Api<ResourceQuota> {
    make::<ResourceQuota>(test, json!({"metadata": {"name": name}, "spec": spec})).await.unwrap();
    let api: Api<ResourceQuota> = Api::default_namespaced(test.client.clone());
    let used: Value = spec["hard"].as_object().unwrap().keys().map(|name| (name.clone(), json!("0"))).collect();
    let status = json!({"status": {"hard": spec["hard"], "used": used}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    api
}

async fn used(api: &Api<ResourceQuota>, quota: &str, name: &str) -> String {
    api.get(quota).await.unwrap().status.unwrap().used.unwrap()[name].0.clone()
}

fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

#[tokio::test]
async fn writes_are_charged_once_and_refused_beyond() {
    let test = start().await;
    let api = quota(&test, "q", json!({"hard": {"pods": "5", "requests.cpu": "1", "configmaps": "2"}})).await;
    let missing = make::<Pod>(&test, pod("p", json!({}))).await.unwrap_err();
    assert_eq!(missing, "pods \"p\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    // At once, so that they meet at the quota: what fits is let in, no more.
    let pods = (0..8).map(|i| pod(&format!("p{i}"), json!({"requests": {"cpu": "300m"}})));
    let results = join_all(pods.map(|pod| make::<Pod>(&test, pod))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    let refused = results.iter().find_map(|result| result.as_ref().err()).unwrap();
    let why = "exceeded quota: q, requested: requests.cpu=300m, used: requests.cpu=900m, limited: requests.cpu=1";
    assert!(refused.ends_with(why), "{refused}");
    assert_eq!((used(&api, "q", "pods").await, used(&api, "q", "requests.cpu").await), ("3".into(), "900m".into()));
    // A dry run is checked and charges nothing.
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "m"}})).unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &map).await.unwrap();
    assert_eq!(used(&api, "q", "configmaps").await, "0");
    maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(used(&api, "q", "configmaps").await, "1");
}

#[tokio::test]
async fn containers_get_defaults_and_stay_within_bounds() {
    let test = start().await;
    let limits = json!([{"type": "Container", "max": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]);
    make::<LimitRange>(&test, json!({"metadata": {"name": "l"}, "spec": {"limits": limits}})).await.unwrap();
    let made = make::<Pod>(&test, pod("plain", json!({}))).await.unwrap();
    let note = &made.metadata.annotations.unwrap()["kubernetes.io/limit-ranger"];
    assert_eq!(note, "LimitRanger plugin set: cpu request for container c; cpu limit for container c");
    let resources = made.spec.unwrap().containers[0].resources.clone().unwrap();
    assert_eq!(
        (resources.requests.unwrap()["cpu"].0.as_str(), resources.limits.unwrap()["cpu"].0.as_str()),
        ("100m", "1")
    );
    let refused = make::<Pod>(&test, pod("big", json!({"limits": {"cpu": "2"}}))).await.unwrap_err();
    let why = "pods \"big\" is forbidden: maximum cpu usage per Container is 1, but limit is 2";
    assert_eq!(refused, why);
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}}}});
    let refused = make::<PersistentVolumeClaim>(&test, claim).await.unwrap_err();
    let why = "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but \
               request is 2Gi";
    assert_eq!(refused, why);
}

#[tokio::test]
async fn there_is_one_default_priority_and_the_systems_stay() {
    let test = start().await;
    let api: Api<PriorityClass> = Api::all(test.client.clone());
    let class = |name: &str, value: i32, default: bool| -> PriorityClass {
        serde_json::from_value(json!({"metadata": {"name": name}, "value": value, "globalDefault": default})).unwrap()
    };
    let params = PostParams::default();
    api.create(&params, &class("usual", 7, true)).await.unwrap();
    let second = message(api.create(&params, &class("other", 8, true)).await.unwrap_err());
    let why = "priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass usual is already marked as \
               default. Only one default can exist";
    assert_eq!(second, why);
    let made = make::<Pod>(&test, pod("p", json!({}))).await.unwrap().spec.unwrap();
    assert_eq!((made.priority, made.priority_class_name.as_deref()), (Some(7), Some("usual")));
    let refused = message(api.delete("system-node-critical", &DeleteParams::default()).await.unwrap_err());
    let why = "priorityclasses.scheduling.k8s.io \"system-node-critical\" is forbidden: this is a system priority \
               class and cannot be deleted";
    assert_eq!(refused, why);
}

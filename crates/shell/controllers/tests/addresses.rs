//! The objects of the addresses that Services have.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use apiserver::Config;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::IPAddress;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::{AllowAll, NobodyElse, TestServer, until};
use tokio_util::sync::CancellationToken;

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn service(name: &str, ip: &str) -> Service {
    let spec = json!({"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]});
    object(json!({"metadata": {"name": name}, "spec": spec}))
}

#[tokio::test]
async fn addresses_are_objects_while_services_have_them() {
    let test = TestServer::start_with(Config::new(Arc::new(NobodyElse), Arc::new(AllowAll))).await;
    let (services, all) = (Api::default_namespaced(test.client.clone()), Api::<IPAddress>::all(test.client.clone()));
    let create = PostParams::default();
    services.create(&create, &service("web", "10.96.0.7")).await.unwrap();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(controllers::run(controllers::Config::default(), test.client.clone(), stop));
    let web = until("the address of web", || async { all.get("10.96.0.7").await.ok() }).await;
    let parent = web.spec.parent_ref;
    assert_eq!((parent.namespace.as_deref(), parent.name.as_str()), (Some("default"), "web"));
    services.create(&create, &service("none", "None")).await.unwrap();
    services.create(&create, &service("other", "10.96.0.8")).await.unwrap();
    // who removes one gets it back
    until("the address of other", || async { all.get("10.96.0.8").await.ok() }).await;
    all.delete("10.96.0.8", &DeleteParams::default()).await.unwrap();
    until("the address of other again", || async { all.get("10.96.0.8").await.ok() }).await;
    let own = json!({"metadata": {"name": "10.96.0.9"}, "spec": {"parentRef": {"resource": "gadgets", "name": "g"}}});
    all.create(&create, &object(own)).await.unwrap();
    services.delete("web", &DeleteParams::default()).await.unwrap();
    until("web's address is gone", || async { all.get_opt("10.96.0.7").await.unwrap().is_none().then_some(()) }).await;
    let left = all.list(&ListParams::default()).await.unwrap();
    let names: Vec<_> = left.items.iter().filter_map(|ip| ip.metadata.name.as_deref()).collect();
    assert_eq!(names, ["10.96.0.8", "10.96.0.9"]);
}

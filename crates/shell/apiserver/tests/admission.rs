//! What built-in admission adds to pods and Services, through a kube-rs client.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::sync::Arc;

use access::admission::service::Ranges;
use apiserver::{Config, admission};
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use meta::address_range::Range;
use serde_json::{Value, json};
use testkit::{AllowAll, MemoryStore, NobodyElse, TestServer};

fn config() -> Config {
    let network: IpAddr = [10, 98, 0, 0].into();
    let ranges = Ranges { addresses: vec![Range { network, prefix: 24 }], node_ports: (30000, 30001) };
    let mut config = Config::new(Arc::new(NobodyElse), Arc::new(AllowAll));
    config.admission = admission::builtin(ranges);
    config
}

fn service(name: &str, spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

fn message(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => panic!("not an API error: {other}"),
    }
}

#[tokio::test]
async fn a_pod_gets_account_token_priority_and_tolerations() {
    let test = TestServer::start_with(config()).await;
    let pods: Api<Pod> = Api::default_namespaced(test.client.clone());
    let pod: Pod = serde_json::from_value(
        json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .unwrap();
    let refused = pods.create(&PostParams::default(), &pod).await.unwrap_err();
    let expected = "pods \"a\" is forbidden: error looking up service account default/default: serviceaccount \"default\" not found";
    assert_eq!(message(refused), expected);
    let accounts: Api<ServiceAccount> = Api::default_namespaced(test.client.clone());
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let spec = pods.create(&PostParams::default(), &pod).await.unwrap().spec.unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    assert_eq!((spec.priority, spec.tolerations.unwrap().len()), (Some(0), 2));
    let mount = &spec.containers[0].volume_mounts.as_ref().unwrap()[0];
    assert!(mount.name.starts_with("kube-api-access-") && mount.mount_path.ends_with("/serviceaccount"));
}

#[tokio::test]
async fn services_never_share_and_a_restart_remembers() {
    let store = Arc::new(MemoryStore::default());
    let test = TestServer::start_over(config(), store.clone()).await;
    let services: Api<Service> = Api::default_namespaced(test.client.clone());
    let params = PostParams::default();
    let port = json!([{"port": 80}]);
    let first = service("a", json!({"type": "NodePort", "clusterIP": "10.98.0.9", "ports": port}));
    let first = services.create(&params, &first).await.unwrap().spec.unwrap();
    let first_port = first.ports.unwrap()[0].node_port.unwrap();
    assert_eq!(first.cluster_ips.unwrap(), ["10.98.0.9"]);
    let second = service("b", json!({"clusterIP": "10.98.0.9", "ports": port}));
    let taken = message(services.create(&params, &second).await.unwrap_err());
    assert!(taken.contains("failed to allocate IP 10.98.0.9: provided IP is already allocated"), "{taken}");
    let drawn = services.create(&params, &service("b", json!({"ports": port}))).await.unwrap().spec.unwrap();
    assert_ne!(drawn.cluster_ip.unwrap(), "10.98.0.9");

    drop(test);
    let test = TestServer::start_over(config(), store).await;
    let services: Api<Service> = Api::default_namespaced(test.client.clone());
    let same = service("c", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": first_port}]}));
    let taken = message(services.create(&params, &same).await.unwrap_err());
    assert!(taken.contains("provided port is already allocated"), "{taken}");
    let plain = Patch::Merge(json!({"spec": {"type": "ClusterIP"}}));
    let changed = services.patch("a", &PatchParams::default(), &plain).await.unwrap().spec.unwrap();
    assert_eq!((changed.cluster_ip.as_deref(), changed.ports.unwrap()[0].node_port), (Some("10.98.0.9"), None));
    services.create(&params, &same).await.unwrap();
    services.delete("a", &DeleteParams::default()).await.unwrap();
    let again = service("d", json!({"clusterIP": "10.98.0.9", "ports": port}));
    services.create(&params, &again).await.unwrap();
}

#[tokio::test]
async fn a_user_may_reserve_an_address() {
    let test = TestServer::start_with(config()).await;
    let (services, addresses) = (Api::default_namespaced(test.client.clone()), Api::all(test.client.clone()));
    let params = PostParams::default();
    let wanted = service("a", json!({"clusterIP": "10.98.0.9", "ports": [{"port": 80}]}));
    let address = |labels: serde_json::Value| -> IPAddress {
        let parent = json!({"resource": "gadgets", "name": "g"});
        let object = json!({"metadata": {"name": "10.98.0.9", "labels": labels}, "spec": {"parentRef": parent}});
        serde_json::from_value(object).unwrap()
    };
    addresses.create(&params, &address(json!({}))).await.unwrap();
    let refused = message(services.create(&params, &wanted).await.unwrap_err());
    assert!(refused.contains("failed to allocate IP 10.98.0.9: provided IP is already allocated"), "{refused}");
    addresses.delete("10.98.0.9", &DeleteParams::default()).await.unwrap();
    // what the controller has not removed yet holds nothing
    let left = address(json!({"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}));
    addresses.create(&params, &left).await.unwrap();
    services.create(&params, &wanted).await.unwrap();
}

#[tokio::test]
async fn services_may_have_addresses_of_every_range_that_is_ready() {
    let test = TestServer::start_with(config()).await;
    let services: Api<Service> = Api::default_namespaced(test.client.clone());
    let cidrs: Api<ServiceCIDR> = Api::all(test.client.clone());
    let params = PostParams::default();
    let wanted = |name: &str| service(name, json!({"clusterIP": "10.99.0.9", "ports": [{"port": 80}]}));
    let refused = message(services.create(&params, &wanted("a")).await.unwrap_err());
    let expected = "the provided IP (10.99.0.9) is not in the valid range. The range of valid IPs is 10.98.0.0/24";
    assert!(refused.contains(expected), "{refused}");

    let cidr = serde_json::from_value(json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.99.0.0/24"]}}));
    cidrs.create(&params, &cidr.unwrap()).await.unwrap();
    assert!(services.create(&params, &wanted("a")).await.is_err(), "the range is not ready");
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    cidrs.patch_status("more", &PatchParams::default(), &Patch::Merge(ready)).await.unwrap();
    services.create(&params, &wanted("a")).await.unwrap();
    let drawn = services.create(&params, &service("b", json!({"ports": [{"port": 80}]}))).await.unwrap();
    assert!(drawn.spec.unwrap().cluster_ip.unwrap().starts_with("10.98.0."), "the cluster's own range comes first");
}

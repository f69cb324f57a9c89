//! The life of objects through a kube-rs client: create, read, change, delete.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::Status;
use serde_json::json;
use testkit::TestServer;

fn config_map(name: &str, key: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": name}}, "data": {key: value}})).unwrap()
}

fn failure(error: kube::Error) -> Status {
    match error {
        kube::Error::Api(status) => *status,
        other => panic!("not an API error: {other}"),
    }
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let test = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    let created = maps.create(&PostParams::default(), &config_map("a", "k", "1")).await.unwrap();
    assert!(created.metadata.uid.is_some() && created.metadata.creation_timestamp.is_some());
    let got = maps.get("a").await.unwrap();
    assert_eq!(got, created);
    let again = maps.create(&PostParams::default(), &config_map("a", "k", "1")).await.unwrap_err();
    assert_eq!(failure(again).message, "configmaps \"a\" already exists");

    let same = maps.replace("a", &PostParams::default(), &got).await.unwrap();
    assert_eq!(same.metadata.resource_version, got.metadata.resource_version);
    let mut changed = got.clone();
    changed.data = Some([("k".to_owned(), "2".to_owned())].into());
    let changed = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(changed.metadata.resource_version, got.metadata.resource_version);
    let stale = failure(maps.replace("a", &PostParams::default(), &got).await.unwrap_err());
    assert_eq!((stale.code, stale.reason.as_str()), (409, "Conflict"));

    let patch = Patch::Merge(json!({"data": {"k": null, "l": "3"}}));
    let patched = maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data.unwrap(), [("l".to_owned(), "3".to_owned())].into());
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(failure(maps.get("a").await.unwrap_err()).message, "configmaps \"a\" not found");
}

#[tokio::test]
async fn names_are_generated() {
    let test = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"generateName": "x-"}})).unwrap();
    let created = maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(created.metadata.name.unwrap().len(), 7);
}

#[tokio::test]
async fn selectors_and_pages_cut_a_list() {
    let test = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    for name in ["a", "b", "c", "d", "e"] {
        maps.create(&PostParams::default(), &config_map(name, "k", "v")).await.unwrap();
    }
    let found = maps.list(&ListParams::default().labels("app in (b,d)")).await.unwrap();
    assert_eq!(found.items.len(), 2);
    let found = maps.list(&ListParams::default().fields("metadata.name=c")).await.unwrap();
    assert_eq!(found.items.len(), 1);
    let first = maps.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (2, Some(3)));
    maps.delete("c", &DeleteParams::default()).await.unwrap();
    let token = first.metadata.continue_.unwrap();
    let second = maps.list(&ListParams::default().limit(10).continue_token(&token)).await.unwrap();
    assert_eq!(second.items.len(), 3, "a page shows the state of the first");
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
}

#[tokio::test]
async fn a_finalizer_holds_a_deletion() {
    let test = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    let mut map = config_map("a", "k", "v");
    map.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    maps.create(&PostParams::default(), &map).await.unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let held = maps.get("a").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(failure(maps.get("a").await.unwrap_err()).code, 404);
}

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}}))
        .unwrap()
}

#[tokio::test]
async fn a_bound_pod_is_deleted_in_two_steps() {
    let test = TestServer::start().await;
    let pods: Api<Pod> = Api::default_namespaced(test.client.clone());
    pods.create(&PostParams::default(), &pod("free")).await.unwrap();
    pods.delete("free", &DeleteParams::default()).await.unwrap();
    assert!(pods.get_opt("free").await.unwrap().is_none());

    let mut bound = pod("bound");
    bound.spec.as_mut().unwrap().node_name = Some("n1".to_owned());
    pods.create(&PostParams::default(), &bound).await.unwrap();
    pods.delete("bound", &DeleteParams::default()).await.unwrap();
    let waiting = pods.get("bound").await.unwrap();
    assert_eq!(waiting.metadata.deletion_grace_period_seconds, Some(30));
    pods.delete("bound", &DeleteParams { grace_period_seconds: Some(5), ..DeleteParams::default() }).await.unwrap();
    assert_eq!(pods.get("bound").await.unwrap().metadata.deletion_grace_period_seconds, Some(5));
    pods.delete("bound", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(pods.get_opt("bound").await.unwrap().is_none());
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_ends() {
    let test = TestServer::start().await;
    let namespaces: Api<Namespace> = Api::all(test.client.clone());
    let immortal = failure(namespaces.delete("default", &DeleteParams::default()).await.unwrap_err());
    assert_eq!(immortal.message, "namespaces \"default\" is forbidden: this namespace may not be deleted");
    let space: Namespace = serde_json::from_value(json!({"metadata": {"name": "x"}})).unwrap();
    namespaces.create(&PostParams::default(), &space).await.unwrap();
    namespaces.delete("x", &DeleteParams::default()).await.unwrap();
    assert_eq!(namespaces.get("x").await.unwrap().status.unwrap().phase.unwrap(), "Terminating");
    let maps: Api<ConfigMap> = Api::namespaced(test.client.clone(), "x");
    let refused = failure(maps.create(&PostParams::default(), &config_map("a", "k", "v")).await.unwrap_err());
    assert_eq!(refused.code, 403);
    assert_eq!(refused.details.unwrap().causes[0].reason, "NamespaceTerminating");
}

#[tokio::test]
async fn patches_of_every_kind_apply() {
    let test = TestServer::start().await;
    let pods: Api<Pod> = Api::default_namespaced(test.client.clone());
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    let strategic: Patch<serde_json::Value> = Patch::Strategic(
        json!({"metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "c", "image": "j"}]}}),
    );
    let patched = pods.patch("a", &PatchParams::default(), &strategic).await.unwrap();
    let containers = patched.spec.unwrap().containers;
    assert_eq!((containers.len(), containers[0].image.as_deref()), (1, Some("j")));
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let merge = Patch::Merge(json!({"metadata": {"labels": {"x": "z"}}}));
    assert_eq!(pods.patch("a", &dry, &merge).await.unwrap().metadata.labels.unwrap()["x"], "z");
    assert_eq!(pods.get("a").await.unwrap().metadata.labels.unwrap()["x"], "y");
}

#[tokio::test]
async fn apply_owns_fields_and_finds_conflicts() {
    let test = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    let config =
        |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}});
    let one = PatchParams::apply("one");
    maps.patch("a", &one, &Patch::Apply(config("1"))).await.unwrap();
    let first = maps.patch("a", &one, &Patch::Apply(config("2"))).await.unwrap();
    assert_eq!(first.data.as_ref().unwrap()["k"], "2");
    let again = maps.patch("a", &one, &Patch::Apply(config("2"))).await.unwrap();
    assert_eq!(again.metadata.resource_version, first.metadata.resource_version);
    let two = PatchParams::apply("two");
    let conflict = failure(maps.patch("a", &two, &Patch::Apply(config("3"))).await.unwrap_err());
    assert_eq!(conflict.message, "Apply failed with 1 conflict: conflict with \"one\": .data.k");
    let forced = maps.patch("a", &two.force(), &Patch::Apply(config("3"))).await.unwrap();
    assert_eq!(forced.data.unwrap()["k"], "3");
    let gone = maps.patch("a", &one, &Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap"}))).await.unwrap();
    assert_eq!(gone.data.unwrap()["k"], "3");
}

#[tokio::test]
async fn metadata_is_checked_for_every_kind() {
    let test = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    let cases = [
        (json!({"labels": {"a b": "x"}}), "metadata.labels"),
        (json!({"labels": {"a": "no spaces"}}), "metadata.labels"),
        (json!({"annotations": {"/x": "y"}}), "metadata.annotations"),
        (json!({"finalizers": ["plain"]}), "metadata.finalizers"),
        (
            json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}]}),
            "metadata.ownerReferences.uid",
        ),
    ];
    for (mut metadata, field) in cases {
        metadata["name"] = json!("bad");
        let map: ConfigMap = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        let refused = failure(maps.create(&PostParams::default(), &map).await.unwrap_err());
        assert_eq!(refused.code, 422, "{refused:?}");
        let causes = refused.details.unwrap().causes;
        assert!(causes.iter().any(|cause| cause.field == field), "{field}: {causes:?}");
    }
}

#[tokio::test]
async fn some_kinds_are_created_by_put_and_some_not_replaced_blindly() {
    let test = TestServer::start().await;
    let leases: Api<Lease> = Api::default_namespaced(test.client.clone());
    let lease: Lease = serde_json::from_value(json!({"metadata": {"name": "l"}, "spec": {}})).unwrap();
    let created = leases.replace("l", &PostParams::default(), &lease).await.unwrap();
    assert!(created.metadata.uid.is_some());
    let blind = failure(leases.replace("l", &PostParams::default(), &lease).await.unwrap_err());
    let why = "Lease.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update";
    assert_eq!((blind.code, blind.message.as_str()), (422, why));
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    let missing = failure(maps.replace("a", &PostParams::default(), &config_map("a", "k", "1")).await.unwrap_err());
    assert_eq!(missing.code, 404);
}

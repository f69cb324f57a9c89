//! Watches: what a client sees, from when, and when it must start again.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use testkit::TestServer;

fn config_map(name: &str, app: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": app}}})).unwrap()
}

fn show(event: &WatchEvent<ConfigMap>) -> String {
    match event {
        WatchEvent::Added(map) => format!("ADDED {}", map.metadata.name.as_deref().unwrap_or("")),
        WatchEvent::Modified(map) => format!("MODIFIED {}", map.metadata.name.as_deref().unwrap_or("")),
        WatchEvent::Deleted(map) => format!("DELETED {}", map.metadata.name.as_deref().unwrap_or("")),
        WatchEvent::Bookmark(_) => "BOOKMARK".to_owned(),
        WatchEvent::Error(status) => format!("ERROR {}", status.code),
    }
}

async fn events(stream: impl futures::Stream<Item = kube::Result<WatchEvent<ConfigMap>>>, count: usize) -> Vec<String> {
    let events = stream.take(count).map_ok(|event| show(&event)).try_collect::<Vec<_>>();
    tokio::time::timeout(Duration::from_secs(5), events).await.expect("events in time").unwrap()
}

#[tokio::test]
async fn selectors_turn_changes_into_additions_and_deletions() {
    let test = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    let list = maps.list(&ListParams::default()).await.unwrap();
    let version = list.metadata.resource_version.unwrap();
    let live = maps.watch(&WatchParams::default().labels("app=web"), &version).await.unwrap();
    maps.create(&PostParams::default(), &config_map("a", "db")).await.unwrap();
    maps.create(&PostParams::default(), &config_map("b", "web")).await.unwrap();
    let label = |app: &str| Patch::Merge(json!({"metadata": {"labels": {"app": app}}}));
    maps.patch("a", &PatchParams::default(), &label("web")).await.unwrap();
    maps.patch("a", &PatchParams::default(), &label("db")).await.unwrap();
    maps.delete("b", &DeleteParams::default()).await.unwrap();
    let expected = ["ADDED b", "ADDED a", "DELETED a", "DELETED b"];
    assert_eq!(events(live, 4).await, expected);
    let past = maps.watch(&WatchParams::default().labels("app=web"), &version).await.unwrap();
    assert_eq!(events(past, 4).await, expected);
}

#[tokio::test]
async fn a_version_from_before_the_ring_is_gone() {
    let test = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    maps.create(&PostParams::default(), &config_map("a", "x")).await.unwrap();
    let config =
        apiserver::Config::new(std::sync::Arc::new(testkit::NobodyElse), std::sync::Arc::new(testkit::AllowAll));
    let second = TestServer::start_over(config, test.store.clone()).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(second.client.clone());
    let watch = maps.watch(&WatchParams::default(), "1").await.unwrap();
    assert_eq!(events(watch, 1).await, ["ERROR 410"]);
}

#[tokio::test]
async fn a_streamed_list_ends_with_a_bookmark() {
    let test = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    maps.create(&PostParams::default(), &config_map("a", "x")).await.unwrap();
    let watch = maps.watch(&WatchParams::default().initial_events(), "0").await.unwrap();
    futures::pin_mut!(watch);
    assert_eq!(events(watch.by_ref(), 2).await, ["ADDED a", "BOOKMARK"]);
    maps.create(&PostParams::default(), &config_map("b", "x")).await.unwrap();
    assert_eq!(events(watch, 1).await, ["ADDED b"]);
}

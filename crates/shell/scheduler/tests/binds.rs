//! The scheduler against an in-process API server: it binds, refuses with reasons, and tries again when it may help.

// Helpers of tests may unwrap as the tests themselves do.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use scheduler::SchedulerConfig;
use serde_json::{Value, json};
use testkit::{TestServer, until_pod};
use tokio_util::sync::{CancellationToken, DropGuard};

const DEADLINE: Duration = Duration::from_secs(20);

async fn start() -> (TestServer, Api<Pod>, Api<Node>, DropGuard) {
    let test = TestServer::start().await;
    let namespaces: Api<Namespace> = Api::all(test.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    // The server may have made it already.
    let _ = namespaces.create(&PostParams::default(), &namespace).await;
    let stop = CancellationToken::new();
    tokio::spawn(scheduler::run(SchedulerConfig::default(), test.client.clone(), stop.clone()));
    let (pods, nodes) = (Api::namespaced(test.client.clone(), "default"), Api::all(test.client.clone()));
    (test, pods, nodes, stop.drop_guard())
}

async fn add_node(nodes: &Api<Node>, name: &str, cpu: &str) {
    let node = serde_json::from_value(json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}))
        .unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let status = json!({"status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "110"}}});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
}

async fn add_pod(pods: &Api<Pod>, name: &str, spec: Value) {
    let container = json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": "600m"}}}]);
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": container}});
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

fn node_of(pod: &Pod) -> Option<String> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone())
}

fn refusal(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    assert_eq!(condition.reason.as_deref(), Some("Unschedulable"));
    condition.message.clone()
}

async fn event_text(test: &TestServer, reason: &str) -> String {
    let events: Api<Event> = Api::namespaced(test.client.clone(), "default");
    let wait = async {
        loop {
            let found = events.list(&ListParams::default()).await.unwrap().items;
            if let Some(event) = found.into_iter().find(|event| event.reason.as_deref() == Some(reason)) {
                return event.message.unwrap_or_default();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("the event in time")
}

#[tokio::test]
async fn pods_are_bound_and_an_assumed_pod_takes_its_room() {
    let (test, pods, nodes, _stop) = start().await;
    add_node(&nodes, "n1", "1").await;
    add_node(&nodes, "n2", "1").await;
    add_pod(&pods, "a", json!({})).await;
    add_pod(&pods, "b", json!({})).await;
    let (a, b) = (until_pod(&pods, "a", node_of).await, until_pod(&pods, "b", node_of).await);
    assert_ne!(a, b, "600m fits once into each node");
    assert!(event_text(&test, "Scheduled").await.starts_with("Successfully assigned default/"));
}

#[tokio::test]
async fn a_refused_pod_says_why_and_goes_when_a_node_comes() {
    let (test, pods, nodes, _stop) = start().await;
    add_node(&nodes, "small", "500m").await;
    add_pod(&pods, "a", json!({})).await;
    let why = "0/1 nodes are available: 1 Insufficient cpu.";
    let told = until_pod(&pods, "a", |pod| refusal(pod).filter(|text| text.starts_with(why))).await;
    assert!(told.ends_with("1 Preemption is not helpful for scheduling."), "{told}");
    assert!(event_text(&test, "FailedScheduling").await.starts_with("0/1 nodes are available: 1 "));
    add_node(&nodes, "large", "2").await;
    assert_eq!(until_pod(&pods, "a", node_of).await, "large");
}

#[tokio::test]
async fn pods_of_other_schedulers_are_left_alone() {
    let (_test, pods, nodes, _stop) = start().await;
    add_node(&nodes, "n1", "4").await;
    add_pod(&pods, "theirs", json!({"schedulerName": "other"})).await;
    add_pod(&pods, "ours", json!({})).await;
    until_pod(&pods, "ours", node_of).await;
    assert_eq!(node_of(&pods.get("theirs").await.unwrap()), None);
}

#[tokio::test]
async fn finished_and_deleted_pods_give_their_room_back() {
    let (_test, pods, nodes, _stop) = start().await;
    add_node(&nodes, "n1", "1").await;
    add_pod(&pods, "first", json!({})).await;
    until_pod(&pods, "first", node_of).await;
    add_pod(&pods, "second", json!({})).await;
    until_pod(&pods, "second", refusal).await;
    let finished = Patch::Strategic(json!({"status": {"phase": "Succeeded"}}));
    pods.patch_status("first", &PatchParams::default(), &finished).await.unwrap();
    assert_eq!(until_pod(&pods, "second", node_of).await, "n1");
    add_pod(&pods, "third", json!({})).await;
    until_pod(&pods, "third", refusal).await;
    pods.delete("second", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert_eq!(until_pod(&pods, "third", node_of).await, "n1");
}

#[tokio::test]
async fn a_gated_pod_waits_and_says_so() {
    let (_test, pods, nodes, _stop) = start().await;
    add_node(&nodes, "n1", "4").await;
    add_pod(&pods, "gated", json!({"schedulingGates": [{"name": "example.com/quota"}]})).await;
    add_pod(&pods, "open", json!({})).await;
    until_pod(&pods, "open", node_of).await;
    let gated = pods.get("gated").await.unwrap();
    assert_eq!(node_of(&gated), None);
    let conditions = gated.status.unwrap().conditions.unwrap();
    assert_eq!(conditions[0].reason.as_deref(), Some("SchedulingGated"));
    let opened = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    pods.patch("gated", &PatchParams::default(), &opened).await.unwrap();
    assert_eq!(until_pod(&pods, "gated", node_of).await, "n1");
}

#[tokio::test]
async fn pods_keep_apart_by_the_labels_of_namespaces() {
    let (_test, pods, nodes, _stop) = start().await;
    add_node(&nodes, "n1", "4").await;
    add_pod(&pods, "first", json!({})).await;
    until_pod(&pods, "first", node_of).await;
    let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {}, "namespaceSelector":
        {"matchLabels": {"kubernetes.io/metadata.name": "default"}}});
    let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    add_pod(&pods, "apart", json!({"affinity": apart})).await;
    let told = until_pod(&pods, "apart", refusal).await;
    assert!(told.starts_with("0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."), "{told}");
    add_node(&nodes, "n2", "4").await;
    assert_eq!(until_pod(&pods, "apart", node_of).await, "n2");
}

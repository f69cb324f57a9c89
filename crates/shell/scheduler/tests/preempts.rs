//! Preemption against an in-process API server: victims are told to go, and their room is kept.

// Helpers of tests may unwrap as the tests themselves do.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use scheduler::SchedulerConfig;
use serde_json::{Value, json};
use testkit::{TestServer, until_pod};
use tokio_util::sync::{CancellationToken, DropGuard};

const DEADLINE: Duration = Duration::from_secs(20);

async fn start() -> (TestServer, Api<Pod>, DropGuard) {
    let test = TestServer::start().await;
    let stop = CancellationToken::new();
    tokio::spawn(scheduler::run(SchedulerConfig::default(), test.client.clone(), stop.clone()));
    let (pods, nodes): (_, Api<Node>) =
        (Api::namespaced(test.client.clone(), "default"), Api::all(test.client.clone()));
    let node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let status = json!({"status": {"allocatable": {"cpu": "1", "memory": "4Gi", "pods": "110"}}});
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    (test, pods, stop.drop_guard())
}

async fn add(pods: &Api<Pod>, name: &str, priority: i32, more: Value) {
    let container = json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": "600m"}}}]);
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": container, "priority": priority}});
    pod["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

fn node_of(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone()
}

fn nominated(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.nominated_node_name.clone()
}

fn refusal(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?.message.clone()
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
async fn victims_go_and_their_room_is_kept() {
    let (test, pods, _stop) = start().await;
    add(&pods, "low", 1, json!({})).await;
    until_pod(&pods, "low", node_of).await;
    add(&pods, "high", 9, json!({})).await;
    let reason = until_pod(&pods, "low", |pod| {
        pod.metadata.deletion_timestamp.as_ref()?;
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_ == "DisruptionTarget").map(|c| (c.reason.clone(), c.message.clone()))
    })
    .await;
    let message = "default-scheduler: preempting to accommodate a higher priority pod";
    assert_eq!(reason, (Some("PreemptionByScheduler".to_owned()), Some(message.to_owned())));
    assert_eq!(until_pod(&pods, "high", nominated).await, "n1");
    let uid = pods.get("high").await.unwrap().metadata.uid.unwrap();
    assert_eq!(event_text(&test, "Preempted").await, format!("Preempted by pod {uid} on node n1"));
    // A pod of the same priority waits, and does not take the room when it comes.
    add(&pods, "late", 9, json!({})).await;
    until_pod(&pods, "late", refusal).await;
    pods.delete("low", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert_eq!(until_pod(&pods, "high", node_of).await, "n1");
    assert_eq!(nominated(&pods.get("high").await.unwrap()), None);
    assert_eq!(node_of(&pods.get("late").await.unwrap()), None);
}

#[tokio::test]
async fn who_may_not_preempt_waits() {
    let (_test, pods, _stop) = start().await;
    add(&pods, "low", 1, json!({})).await;
    until_pod(&pods, "low", node_of).await;
    add(&pods, "polite", 9, json!({"preemptionPolicy": "Never"})).await;
    let told = until_pod(&pods, "polite", refusal).await;
    assert!(told.ends_with("preemption: not eligible due to preemptionPolicy=Never."), "{told}");
    assert!(pods.get("low").await.unwrap().metadata.deletion_timestamp.is_none());
}

//! Who has to go: clusters as text, the chosen node and its victims as text.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use placement::{Budget, NodeSpec, PodInfo, Snapshot, place};
use serde_json::{Value, json};

/// `name cpu priority started [label]`.
fn pod(text: &str) -> PodInfo {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let labels = parts.get(4).map_or(json!({}), |label| json!({"app": label}));
    let mut status = json!({});
    if let Some(second) = parts.get(3).and_then(|second| second.parse::<i64>().ok()) {
        status["startTime"] = meta::time::format_seconds(second).into();
    }
    build(json!({
        "metadata": {"name": parts[0], "namespace": "a", "uid": parts[0], "labels": labels},
        "spec": {"priority": parts[2].parse::<i32>().unwrap(),
            "containers": [{"name": "c", "resources": {"requests": {"cpu": parts[1]}}}]},
        "status": status,
    }))
}

fn build(pod: Value) -> PodInfo {
    PodInfo::new(serde_json::from_value::<Pod>(pod).unwrap())
}

/// Nodes `n1`, `n2`, ... with one CPU each and these pods.
fn cluster(nodes: &[&[&str]]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (i, pods) in nodes.iter().enumerate() {
        let name = format!("n{}", i + 1);
        let node = json!({"metadata": {"name": name, "labels": {"host": name}},
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "10"}}});
        snapshot.set_node(Arc::new(NodeSpec::new(serde_json::from_value::<Node>(node).unwrap())));
        pods.iter().for_each(|text| snapshot.add_pod(&name, Arc::new(pod(text))));
    }
    snapshot
}

fn protect(snapshot: &mut Snapshot, label: &str, allowed: i64) {
    let budget = json!({"spec": {"selector": {"matchLabels": {"app": label}}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}});
    let budget: PodDisruptionBudget = serde_json::from_value(budget).unwrap();
    snapshot.set_budget("a", label, Budget::new(&budget));
}

fn outcome(snapshot: &Snapshot, pod: &PodInfo) -> String {
    match place(pod, snapshot, 0) {
        Ok(node) => format!("bind {node}"),
        Err(why) => match why.preemption {
            Some(found) => {
                let victims: Vec<&str> = found.victims.iter().map(|victim| victim.name.as_str()).collect();
                format!("{}: {}", found.node, victims.join(" "))
            }
            None => why.message,
        },
    }
}

#[test]
fn the_least_is_lost() {
    for (nodes, incoming, expected) in [
        // Only what is needed, and the least important of it.
        (&[&["a 400m 1 1", "b 300m 1 2", "c 300m 2 3"][..]][..], "p 300m 9", "n1: b"),
        (&[&["a 500m 1 1", "b 500m 1 2"][..]][..], "p 1 9", "n1: a b"),
        // The lowest highest priority.
        (&[&["a 1 3 1"][..], &["b 1 2 1"]][..], "p 1 9", "n2: b"),
        // The lowest sum of priorities, of which fewer victims are part.
        (&[&["a 500m 2 1", "b 500m 2 1"][..], &["c 1 2 1"]][..], "p 1 9", "n2: c"),
        (&[&["a 500m 2 1", "b 500m 1 1"][..], &["c 500m 2 1", "d 500m 0 1"]][..], "p 1 9", "n2: c d"),
        // The most recently started.
        (&[&["a 1 2 100"][..], &["b 1 2 200"]][..], "p 1 9", "n2: b"),
        // Nobody goes for a pod that fits, or for one that is not more important.
        (&[&["a 1 2 1"][..], &[]][..], "p 1 9", "bind n2"),
        (
            &[&["a 1 9 1"][..]][..],
            "p 1 9",
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are \
             available: 1 No preemption victims found for incoming pod.",
        ),
        (
            &[&["a 500m 9 1", "b 500m 1 1"][..], &[]][..],
            "p 1500m 9",
            "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: 0/2 nodes are \
             available: 2 Preemption is not helpful for scheduling.",
        ),
        (
            &[&["a 500m 9 1", "b 500m 1 1"][..]][..],
            "p 600m 9",
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are \
             available: 1 Insufficient cpu.",
        ),
    ] {
        assert_eq!(outcome(&cluster(nodes), &pod(incoming)), expected, "{nodes:?}");
    }
}

#[test]
fn budgets_are_respected_as_far_as_possible() {
    let mut snapshot = cluster(&[&["a 1 1 1 web"], &["b 1 2 1 db"]]);
    protect(&mut snapshot, "web", 0);
    assert_eq!(outcome(&snapshot, &pod("p 1 9")), "n2: b");
    protect(&mut snapshot, "db", 0);
    assert_eq!(outcome(&snapshot, &pod("p 1 9")), "n1: a");
    // On one node those come back first whose loss would break a budget.
    let mut snapshot = cluster(&[&["a 500m 1 1 web", "b 500m 2 1", "c 0 3 1 web"]]);
    protect(&mut snapshot, "web", 1);
    assert_eq!(outcome(&snapshot, &pod("p 500m 9")), "n1: b");
    protect(&mut snapshot, "web", 2);
    assert_eq!(outcome(&snapshot, &pod("p 500m 9")), "n1: a");
}

#[test]
fn room_that_was_made_is_kept() {
    let mut snapshot = cluster(&[&[]]);
    let first = pod("first 1 5");
    snapshot.nominate("n1", Arc::new(first.clone()));
    let full = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are \
                available: 1 No preemption victims found for incoming pod.";
    assert_eq!(outcome(&snapshot, &pod("lower 1 4")), full);
    assert_eq!(outcome(&snapshot, &pod("equal 1 5")), full);
    assert_eq!(outcome(&snapshot, &pod("higher 1 6")), "bind n1");
    assert_eq!(outcome(&snapshot, &first), "bind n1");
    snapshot.denominate("first");
    assert_eq!(outcome(&snapshot, &pod("lower 1 4")), "bind n1");
}

#[test]
fn nobody_else_goes_while_a_victim_is_going() {
    let going = json!({"metadata": {"name": "v", "uid": "v", "namespace": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"priority": 1, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
        "status": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}});
    let mut snapshot = cluster(&[&[], &["b 1 1 1"]]);
    snapshot.add_pod("n1", Arc::new(build(going)));
    let first = pod("first 1 5");
    snapshot.nominate("n1", Arc::new(first.clone()));
    let waits = "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: not eligible due \
                 to a terminating pod on the nominated node.";
    assert_eq!(outcome(&snapshot, &first), waits);
    assert_eq!(outcome(&snapshot, &pod("second 1 5")), "n2: b");
    let why = place(&pod("second 1 6"), &snapshot, 0).unwrap_err().preemption.unwrap();
    assert_eq!((why.node.as_str(), why.displaced.len()), ("n1", 1), "the victim that goes already is the cheapest");
}

#[test]
fn victims_are_found_where_pods_keep_apart() {
    let apart = |name: &str, priority: i64| {
        let term = json!({"topologyKey": "host", "labelSelector": {"matchLabels": {"app": "web"}}});
        build(json!({"metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": "web"}},
            "spec": {"priority": priority, "containers": [{"name": "c"}],
                "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}}))
    };
    let mut snapshot = cluster(&[&["other 100m 1 1"]]);
    snapshot.add_pod("n1", Arc::new(apart("web", 1)));
    assert_eq!(outcome(&snapshot, &apart("p", 9)), "n1: web");
}

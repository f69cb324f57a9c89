//! What every node has against a pod, all of it.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use placement::{NodeSpec, PodInfo, Snapshot, survey};
use serde_json::json;

#[test]
fn a_node_tells_all_that_speaks_against_a_pod() {
    let mut snapshot = Snapshot::default();
    let taint = json!([{"key": "k", "effect": "NoSchedule"}]);
    for (name, disk, spec) in [
        ("n1", "ssd", json!({})),
        ("n2", "tape", json!({"taints": taint, "unschedulable": true})),
        ("n3", "ssd", json!({"taints": taint})),
    ] {
        let node = json!({"metadata": {"name": name, "labels": {"disk": disk}}, "spec": spec,
            "status": {"allocatable": {"cpu": if name == "n3" { "1" } else { "4" }, "pods": "10"}}});
        snapshot.set_node(Arc::new(NodeSpec::new(serde_json::from_value(node).unwrap())));
    }
    let pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"nodeSelector": {"disk": "ssd"},
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}});
    let pod = PodInfo::new(serde_json::from_value(pod).unwrap());
    let answers: Vec<String> = survey(&pod, &snapshot)
        .into_iter()
        .map(|(node, reasons)| format!("{}: {}", node.spec.name, reasons.join("; ")))
        .collect();
    assert_eq!(
        answers,
        [
            "n1: ",
            "n2: node(s) were unschedulable; node(s) had untolerated taint(s); node(s) didn't match Pod's node affinity/selector",
            "n3: node(s) had untolerated taint(s); Insufficient cpu",
        ]
    );
}

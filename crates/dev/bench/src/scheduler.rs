//! Pods placed a second by the pure scheduler, each on top of those before it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow};
use k8s_openapi::api::core::v1::{Node, Pod};
use placement::{NodeSpec, PodInfo, Snapshot, place};
use serde_json::json;

pub fn run(nodes: usize, pods: usize) -> Result<()> {
    let mut snapshot = Snapshot::default();
    for index in 0..nodes {
        let name = format!("node-{index}");
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("z{}", index % 3)}},
            "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}},
        }))?;
        snapshot.set_node(Arc::new(NodeSpec::new(node)));
    }
    let started = Instant::now();
    for index in 0..pods {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": format!("p{index}"), "namespace": "default", "uid": format!("u{index}"),
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]},
        }))?;
        let pod = Arc::new(PodInfo::new(pod));
        let node = place(&pod, &snapshot, index as u64).map_err(|why| anyhow!(why.message))?;
        snapshot.add_pod(&node, pod);
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{nodes} nodes: {pods} pods placed in {seconds:.2} s, {:.0} a second", pods as f64 / seconds);
    Ok(())
}

//! Pods with claims: which nodes take them, which volumes they get there, and why none does.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use placement::volumes::{ClaimInfo, ClassInfo, VolumeInfo};
use placement::{NodeSpec, PodInfo, Snapshot, place, volume_plan};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn read<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

/// Three nodes, `n1` in zone a, the others in zone b, and two classes.
fn cluster() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, zone) in [("n1", "a"), ("n2", "b"), ("n3", "b")] {
        let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone});
        let allocatable = json!({"cpu": "4", "memory": "4Gi", "pods": "10"});
        let node = json!({"metadata": {"name": name, "labels": labels}, "status": {"allocatable": allocatable}});
        snapshot.set_node(Arc::new(NodeSpec::new(read::<Node>(node))));
    }
    let zone = json!([{"matchLabelExpressions": [{"key": "topology.kubernetes.io/zone", "values": ["a"]}]}]);
    for (name, provisioner, mode, topologies) in [
        ("local", "tug.local/disk", "WaitForFirstConsumer", Value::Null),
        ("zoned", "tug.local/disk", "WaitForFirstConsumer", zone),
        ("static", "kubernetes.io/no-provisioner", "WaitForFirstConsumer", Value::Null),
        ("now", "example.com/x", "Immediate", Value::Null),
    ] {
        let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode,
                           "allowedTopologies": topologies});
        let class = ClassInfo::new(&read::<StorageClass>(class));
        snapshot.volumes_mut().set_class(name, Some(Arc::new(class)));
    }
    snapshot
}

/// `NAME CLASS [VOLUME]`.
fn claim(snapshot: &mut Snapshot, text: &str, modes: &[&str]) {
    let parts: Vec<&str> = text.split(' ').collect();
    let mut claim = json!({
        "metadata": {"name": parts[0], "namespace": "a", "uid": parts[0]},
        "spec": {"storageClassName": parts[1], "accessModes": modes, "resources": {"requests": {"storage": "1Gi"}}},
    });
    if let Some(volume) = parts.get(2) {
        claim["spec"]["volumeName"] = (*volume).into();
        claim["status"] = json!({"phase": "Bound"});
        claim["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
    }
    let info = ClaimInfo::new(&read::<PersistentVolumeClaim>(claim));
    snapshot.volumes_mut().set_claim("a", parts[0], Some(Arc::new(info)));
}

/// A volume that only these nodes reach; none: all do.
fn volume(snapshot: &mut Snapshot, name: &str, size: &str, class: &str, nodes: &[&str], change: Value) {
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}]}]);
    let mut volume = json!({
        "metadata": {"name": name, "resourceVersion": "1"},
        "spec": {"capacity": {"storage": size}, "storageClassName": class, "accessModes": ["ReadWriteOnce"]},
        "status": {"phase": "Available"},
    });
    if !nodes.is_empty() {
        volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": terms}});
    }
    for (key, value) in change.as_object().unwrap() {
        volume[key.as_str()].as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
    }
    let info = VolumeInfo::new(&read::<PersistentVolume>(volume));
    snapshot.volumes_mut().set_volume(name, Some(Arc::new(info)));
}

fn pod(name: &str, claims: &[&str]) -> PodInfo {
    let volumes: Vec<Value> =
        claims.iter().map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}})).collect();
    PodInfo::new(read::<Pod>(json!({
        "metadata": {"name": name, "namespace": "a", "uid": name},
        "spec": {"containers": [{"name": "c"}], "volumes": volumes},
    })))
}

/// `NODE: CLAIM<-VOLUME ... CLAIM<-new ...`, or why not.
fn check(snapshot: &Snapshot, pod: &PodInfo, expected: &str) {
    let answer = match place(pod, snapshot, 0) {
        Ok(node) => {
            let plan = volume_plan(pod, snapshot, &node);
            let bind = plan.bind.iter().map(|(volume, claim)| format!(" {}<-{}", claim.name, volume.name));
            let made = plan.provision.iter().map(|claim| format!(" {}<-new", claim.name));
            format!("{node}:{}", bind.chain(made).collect::<String>())
        }
        Err(why) => why.message.split(" no new claims").next().unwrap().to_owned(),
    };
    assert_eq!(answer, expected);
}

const ONCE: &[&str] = &["ReadWriteOnce"];

#[test]
fn what_holds_for_all_nodes_is_said_once() {
    let mut snapshot = cluster();
    claim(&mut snapshot, "now now", ONCE);
    let is = |pod: &PodInfo, why: &str| check(&snapshot, pod, &format!("0/3 nodes are available: {why}."));
    is(&pod("p", &["none"]), "persistentvolumeclaim \"none\" not found");
    is(&pod("p", &["now"]), "pod has unbound immediate PersistentVolumeClaims");
    let scratch = json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]);
    let ephemeral = PodInfo::new(read::<Pod>(json!({"metadata": {"name": "p", "namespace": "a", "uid": "p"},
        "spec": {"containers": [{"name": "c"}], "volumes": scratch}})));
    is(&ephemeral, "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-scratch\"");
    let why = place(&pod("p", &["now"]), &snapshot, 0).unwrap_err();
    assert_eq!(why.plugins, ["VolumeBinding"]);
    assert!(why.message.ends_with("3 Preemption is not helpful for scheduling."), "{}", why.message);
}

#[test]
fn pods_go_where_their_volumes_are() {
    let mut snapshot = cluster();
    volume(&mut snapshot, "v2", "1Gi", "local", &["n2"], json!({}));
    claim(&mut snapshot, "data local v2", ONCE);
    check(&snapshot, &pod("p", &["data"]), "n2:");
    volume(&mut snapshot, "gone", "1Gi", "local", &["n9"], json!({}));
    claim(&mut snapshot, "far local gone", ONCE);
    check(
        &snapshot,
        &pod("p", &["far"]),
        "0/3 nodes are available: 3 node(s) didn't match PersistentVolume's node affinity.",
    );
    claim(&mut snapshot, "lost local nowhere", ONCE);
    check(
        &snapshot,
        &pod("p", &["lost"]),
        "0/3 nodes are available: 3 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).",
    );
    let labels = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "a__c"}}});
    volume(&mut snapshot, "zonal", "1Gi", "local", &[], labels);
    claim(&mut snapshot, "in-a local zonal", ONCE);
    check(&snapshot, &pod("p", &["in-a"]), "n1:");
    check(
        &snapshot,
        &pod("p", &["in-a", "data"]),
        "0/3 nodes are available: 1 node(s) had no available volume zone, \
         2 node(s) didn't match PersistentVolume's node affinity.",
    );
}

#[test]
fn claims_that_wait_get_their_volume_with_the_node() {
    let mut snapshot = cluster();
    claim(&mut snapshot, "one static", ONCE);
    claim(&mut snapshot, "two static", ONCE);
    check(
        &snapshot,
        &pod("p", &["one"]),
        "0/3 nodes are available: 3 node(s) didn't find available persistent volumes to bind.",
    );
    volume(&mut snapshot, "small", "1Mi", "static", &["n1"], json!({}));
    volume(&mut snapshot, "large", "9Gi", "static", &["n3"], json!({}));
    volume(&mut snapshot, "right", "2Gi", "static", &["n3"], json!({}));
    check(&snapshot, &pod("p", &["one"]), "n3: one<-right");
    check(&snapshot, &pod("p", &["one", "two"]), "n3: one<-right two<-large");
    claim(&mut snapshot, "made zoned", ONCE);
    check(&snapshot, &pod("p", &["made"]), "n1: made<-new");

    let wanted = pod("p", &["one"]);
    let plan = volume_plan(&wanted, &snapshot, "n3");
    let assumed = snapshot.volumes_mut().assume(&plan, "n3");
    check(&snapshot, &pod("q", &["two"]), "n3: two<-large");
    snapshot.volumes_mut().forget(&assumed);
    check(&snapshot, &pod("q", &["two"]), "n3: two<-right");

    let plan = volume_plan(&pod("p", &["made"]), &snapshot, "n1");
    snapshot.volumes_mut().assume(&plan, "n2");
    check(
        &snapshot,
        &pod("q", &["made"]),
        "0/3 nodes are available: 3 node(s) didn't find available persistent volumes to bind.",
    );
}

#[test]
fn some_volumes_are_for_one_pod_and_some_nodes_take_only_so_many() {
    let mut snapshot = cluster();
    volume(&mut snapshot, "v", "1Gi", "local", &[], json!({}));
    claim(&mut snapshot, "alone local v", &["ReadWriteOncePod"]);
    snapshot.add_pod("n1", Arc::new(pod("first", &["alone"])));
    check(
        &snapshot,
        &pod("second", &["alone"]),
        "0/3 nodes are available: 3 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode \
         already in-use by another pod.",
    );
    snapshot.remove_pod("n1", "first");
    assert!(place(&pod("second", &["alone"]), &snapshot, 0).is_ok());

    for name in ["x", "y"] {
        let source = json!({"spec": {"csi": {"driver": "d", "volumeHandle": name}}});
        volume(&mut snapshot, name, "1Gi", "local", &["n2"], source);
        claim(&mut snapshot, &format!("{name} local {name}"), ONCE);
    }
    let limits = json!({"metadata": {"name": "n2"},
        "spec": {"drivers": [{"name": "d", "nodeID": "n2", "allocatable": {"count": 1}}]}});
    snapshot.volumes_mut().set_limits("n2", Some(&read::<CSINode>(limits)));
    snapshot.add_pod("n2", Arc::new(pod("first", &["x"])));
    check(&snapshot, &pod("again", &["x"]), "n2:");
    check(
        &snapshot,
        &pod("more", &["y"]),
        "0/3 nodes are available: 1 node(s) exceed max volume count, \
         2 node(s) didn't match PersistentVolume's node affinity.",
    );
}

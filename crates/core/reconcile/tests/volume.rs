//! Claims and volumes in, plans out: binding, its undoing, protection, provisioning and growth.
#![allow(clippy::unwrap_used)]

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use reconcile::PodView;
use reconcile::plan::{Op, Plan, merge};
use reconcile::volume::{claim, disk, ephemeral, expand, persistent, protection};
use serde_json::{Value, json};

/// `VERB KIND NAME BODY` of each write, then `REASON: MESSAGE` of each event.
fn text(plan: &Plan) -> String {
    let mut lines = Vec::new();
    for step in &plan.steps {
        lines.push(match &step.op {
            Op::Create { resource, object, .. } => {
                format!("create {} {}", resource.kind, object["metadata"]["name"].as_str().unwrap())
            }
            Op::Delete { resource, name, .. } => format!("delete {} {name}", resource.kind),
            Op::Patch { resource, name, subresource, body, .. } => {
                let mut body = body.clone();
                merge(&mut body, &json!({"metadata": {"uid": null, "resourceVersion": null}}));
                if body["metadata"] == json!({}) {
                    body.as_object_mut().unwrap().remove("metadata");
                }
                if subresource.is_some() {
                    body = body["status"].take();
                }
                let part = subresource.map(|part| format!("/{part}")).unwrap_or_default();
                format!("update {}{part} {name} {body}", resource.kind)
            }
        });
        lines.extend(step.done.iter().map(|note| format!("  then {}: {}", note.reason, note.message)));
    }
    lines.extend(plan.notes.iter().map(|note| format!("{}: {}", note.reason, note.message)));
    lines.join("\n")
}

fn with<T: serde::de::DeserializeOwned>(mut base: Value, change: Value) -> T {
    merge(&mut base, &change);
    serde_json::from_value(base).unwrap()
}

fn claim_with(change: Value) -> PersistentVolumeClaim {
    let base = json!({
        "metadata": {"name": "data", "namespace": "a", "uid": "c1"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeMode": "Filesystem",
                 "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    });
    with(base, change)
}

fn volume_with(name: &str, change: Value) -> PersistentVolume {
    let base = json!({
        "metadata": {"name": name, "uid": name, "labels": {"disk": "fast"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "volumeMode": "Filesystem",
                 "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/x"}},
        "status": {"phase": "Available"},
    });
    with(base, change)
}

fn class(name: &str, change: Value) -> StorageClass {
    let base = json!({"metadata": {"name": name}, "provisioner": disk::PROVISIONER_NAME,
                      "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete"});
    with(base, change)
}

fn bound_reference(uid: &str) -> Value {
    json!({"spec": {"claimRef": {"kind": "PersistentVolumeClaim", "namespace": "a", "name": "data", "uid": uid}}})
}

fn check(
    claim: &PersistentVolumeClaim,
    volumes: &[PersistentVolume],
    classes: &[StorageClass],
    pods: &[&str],
) -> String {
    let view = claim::View {
        claim,
        volumes: volumes.iter().collect(),
        classes: classes.iter().collect(),
        waiting_pods: pods.iter().map(ToString::to_string).collect(),
    };
    text(&claim::plan(&view))
}

#[test]
fn the_smallest_volume_that_suits_is_bound_on_both_sides() {
    let volumes = [
        volume_with("large", json!({"spec": {"capacity": {"storage": "5Gi"}}})),
        volume_with("small", json!({"spec": {"capacity": {"storage": "1Mi"}}})),
        volume_with("classy", json!({"spec": {"storageClassName": "x"}})),
        volume_with("shared", json!({"spec": {"accessModes": ["ReadWriteMany"]}})),
        volume_with("raw", json!({"spec": {"volumeMode": "Block"}})),
        volume_with("leaving", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        volume_with("held", bound_reference("other")),
        volume_with("fits", json!({"spec": {"capacity": {"storage": "2Gi"}}})),
    ];
    let plan = check(&claim_with(json!({})), &volumes, &[], &[]);
    assert_eq!(
        plan,
        "update PersistentVolume fits {\"metadata\":{\"annotations\":{\"pv.kubernetes.io/bound-by-controller\":\"yes\"}},\
         \"spec\":{\"claimRef\":{\"apiVersion\":\"v1\",\"kind\":\"PersistentVolumeClaim\",\"name\":\"data\",\
         \"namespace\":\"a\",\"uid\":\"c1\"}}}\n\
         update PersistentVolume/status fits {\"message\":null,\"phase\":\"Bound\"}\n\
         update PersistentVolumeClaim data {\"metadata\":{\"annotations\":{\"pv.kubernetes.io/bind-completed\":\"yes\",\
         \"pv.kubernetes.io/bound-by-controller\":\"yes\"}},\"spec\":{\"volumeName\":\"fits\"}}\n\
         update PersistentVolumeClaim/status data {\"accessModes\":[\"ReadWriteOnce\"],\
         \"capacity\":{\"storage\":\"2Gi\"},\"phase\":\"Bound\"}"
    );
    let picky = claim_with(json!({"spec": {"selector": {"matchLabels": {"disk": "slow"}}}}));
    assert_eq!(
        check(&picky, &volumes, &[], &[]),
        "FailedBinding: no persistent volumes available for this claim and no storage class is set"
    );
}

#[test]
fn a_binding_that_is_complete_needs_nothing() {
    let done = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
                      "spec": {"volumeName": "v"},
                      "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}});
    let (claim, mut bound) = (claim_with(done), bound_reference("c1"));
    bound["status"] = json!({"phase": "Bound"});
    let volume = volume_with("v", bound);
    assert_eq!(check(&claim, std::slice::from_ref(&volume), &[], &[]), "");
    assert_eq!(text(&persistent::plan(&volume, Some(&claim))), "");
    let gone = check(&claim, &[], &[], &[]);
    assert!(gone.contains("\"phase\":\"Lost\"") && gone.contains("then ClaimLost: Bound claim has lost its"), "{gone}");
    let taken = volume_with("v", bound_reference("other"));
    assert!(check(&claim, &[taken], &[], &[]).contains("ClaimMisbound"));
}

#[test]
fn claims_say_what_they_wait_for() {
    let waits = [class("local", json!({}))];
    let of_class = |name: &str| claim_with(json!({"spec": {"storageClassName": name}}));
    let local = of_class("local");
    assert_eq!(
        check(&local, &[], &waits, &[]),
        "WaitForFirstConsumer: waiting for first consumer to be created before binding"
    );
    assert_eq!(check(&local, &[], &waits, &["p"]), "WaitForPodScheduled: waiting for pod p to be scheduled");
    assert_eq!(
        check(&of_class("none"), &[], &waits, &[]),
        "ProvisioningFailed: storageclass.storage.k8s.io \"none\" not found"
    );
    let nobody =
        class("static", json!({"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "Immediate"}));
    assert_eq!(
        check(&of_class("static"), &[], &[nobody], &[]),
        "ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner"
    );
    let foreign = class("far", json!({"provisioner": "example.com/x", "volumeBindingMode": "Immediate"}));
    let told = check(&of_class("far"), &[], &[foreign], &[]);
    assert!(
        told.contains("storage-provisioner\":\"example.com/x\"") && told.contains("ExternalProvisioning"),
        "{told}"
    );
    let marked =
        class("d", json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}));
    assert_eq!(
        check(&claim_with(json!({"spec": {"storageClassName": null}})), &[], &[marked], &[]),
        "update PersistentVolumeClaim data {\"spec\":{\"storageClassName\":\"d\"}}"
    );
    let named = claim_with(json!({"spec": {"volumeName": "v", "storageClassName": "x"}}));
    assert_eq!(check(&named, &[], &[], &[]), "");
    assert_eq!(
        check(&named, &[volume_with("v", json!({}))], &[], &[]),
        "VolumeMismatch: Cannot bind to requested volume \"v\": storageClassName does not match"
    );
    assert_eq!(
        check(&named, &[volume_with("v", bound_reference("other"))], &[], &[]),
        "FailedBinding: volume \"v\" already bound to a different claim."
    );
}

#[test]
fn a_volume_without_its_claim_is_released_and_reclaimed() {
    let volume = |policy: &str, by: Value| {
        let mut change = bound_reference("c1");
        change["spec"]["persistentVolumeReclaimPolicy"] = policy.into();
        change["metadata"] = json!({"annotations": by});
        change["status"] = json!({"phase": "Bound"});
        volume_with("v", change)
    };
    let released = "update PersistentVolume/status v {\"message\":null,\"phase\":\"Released\"}";
    assert_eq!(text(&persistent::plan(&volume("Retain", json!({})), None)), released);
    let made = json!({"pv.kubernetes.io/provisioned-by": "tug.local/disk"});
    assert_eq!(text(&persistent::plan(&volume("Delete", made.clone()), None)), released);
    assert!(text(&persistent::plan(&volume("Delete", json!({})), None)).contains("then VolumeFailedDelete"));
    let recycled = text(&persistent::plan(&volume("Recycle", json!({})), None));
    assert!(recycled.contains("then VolumeFailedRecycle: No recycler plugin found for the volume!"), "{recycled}");
    let successor = claim_with(json!({"metadata": {"uid": "c2"}}));
    assert_eq!(text(&persistent::plan(&volume("Retain", json!({})), Some(&successor))), released);

    let elsewhere = claim_with(json!({"spec": {"volumeName": "w"}}));
    let ours = json!({"pv.kubernetes.io/bound-by-controller": "yes"});
    let undone = text(&persistent::plan(&volume("Retain", ours), Some(&elsewhere)));
    assert!(undone.contains("\"claimRef\":null") && undone.contains("Available"), "{undone}");
    let kept = text(&persistent::plan(&volume("Retain", json!({})), Some(&elsewhere)));
    assert!(kept.contains("\"claimRef\":{\"uid\":null}"), "{kept}");
    assert_eq!(text(&persistent::plan(&volume("Delete", made), Some(&elsewhere))), released);
}

fn pod(change: Value) -> PodView {
    let base = json!({"metadata": {"name": "p", "namespace": "a", "uid": "p1"}, "spec": {"containers": []}});
    PodView::from_pod(with::<Pod>(base, change))
}

#[test]
fn what_is_in_use_is_held() {
    let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
                                      "finalizers": ["kubernetes.io/pvc-protection", "other"]}});
    let claim = claim_with(leaving);
    assert_eq!(text(&protection::claim(&claim, true)), "");
    let free = "update PersistentVolumeClaim data {\"metadata\":{\"finalizers\":[\"other\"]}}";
    assert_eq!(text(&protection::claim(&claim, false)), free);
    assert!(text(&protection::claim(&claim_with(json!({})), true)).contains("kubernetes.io/pvc-protection"));

    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    assert!(protection::uses(&pod(json!({"spec": {"nodeName": "n", "volumes": volumes}})), &claim));
    assert!(!protection::uses(&pod(json!({"spec": {"volumes": volumes}})), &claim), "no node, no use");
    assert!(!protection::uses(&pod(json!({"spec": {"nodeName": "n"}})), &claim));

    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
                                    "finalizers": ["kubernetes.io/pv-protection"]}, "status": {"phase": "Released"}});
    assert_eq!(
        text(&protection::volume(&volume_with("v", going.clone()))),
        "update PersistentVolume v {\"metadata\":{\"finalizers\":[]}}"
    );
    let mut held = going;
    held["status"]["phase"] = "Bound".into();
    assert_eq!(text(&protection::volume(&volume_with("v", held))), "");
}

#[test]
fn ephemeral_volumes_get_claims_of_their_own() {
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let owner =
        pod(json!({"spec": {"volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]}}));
    assert_eq!(text(&ephemeral::plan(&owner, |_| None)), "create PersistentVolumeClaim p-scratch");
    let stranger = claim_with(json!({"metadata": {"name": "p-scratch"}}));
    let plan = ephemeral::plan(&owner, |name| (name == "p-scratch").then_some(&stranger));
    assert!(
        text(&plan).starts_with("FailedBinding: ephemeral volume scratch: PVC a/p-scratch was not created for pod")
    );
    let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p1", "controller": true}]);
    let own = claim_with(json!({"metadata": {"name": "p-scratch", "ownerReferences": owners}}));
    assert_eq!(text(&ephemeral::plan(&owner, |_| Some(&own))), "");
}

#[test]
fn disks_are_made_where_the_scheduler_says() {
    let ours = json!({"volume.kubernetes.io/storage-provisioner": "tug.local/disk"});
    let asks = |node: Value, spec: Value| {
        let mut annotations = ours.clone();
        merge(&mut annotations, &node);
        let claim = claim_with(json!({"metadata": {"annotations": annotations}, "spec": spec}));
        match disk::wanted(&claim, Some(&class("local", json!({})))) {
            disk::Wanted::Nothing => "nothing".to_owned(),
            disk::Wanted::Disk(request) => {
                format!("{} {} on {}", request.name, disk::quantity(request.bytes), request.node.unwrap_or_default())
            }
            disk::Wanted::Impossible(why) => why,
        }
    };
    let selected = json!({"volume.kubernetes.io/selected-node": "n1"});
    assert_eq!(asks(json!({}), json!({})), "nothing");
    assert_eq!(asks(selected.clone(), json!({})), "pvc-c1 1Gi on n1");
    let size = json!({"resources": {"requests": {"storage": "10500k"}}});
    assert_eq!(asks(selected.clone(), size), "pvc-c1 11Mi on n1");
    assert_eq!(asks(selected.clone(), json!({"volumeName": "v"})), "nothing");
    assert!(asks(selected, json!({"accessModes": ["ReadWriteMany"]})).contains("ReadWriteMany"));

    let node = |name: &str, ready: &str| -> Node {
        with(
            json!({"metadata": {"name": name}}),
            json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}}),
        )
    };
    let nodes = [node("n1", "True"), node("n2", "True"), node("n3", "False")];
    let on_first = volume_with("v", json!({"metadata": {"annotations": {"tug.local/node": "n1"}}}));
    let views: Vec<&Node> = nodes.iter().collect();
    assert_eq!(disk::choose(&views, [&on_first], &class("c", json!({}))), Some("n2"));
    assert_eq!(disk::choose(&views[2..], [], &class("c", json!({}))), None);
}

#[test]
fn a_disk_ends_with_its_claim_as_the_policy_says() {
    let volume = |phase: &str, policy: &str, leaving: bool| {
        let mut change = json!({
            "metadata": {"finalizers": ["tug.local/disk"],
                         "annotations": {"pv.kubernetes.io/provisioned-by": "tug.local/disk", "tug.local/node": "n1"}},
            "spec": {"persistentVolumeReclaimPolicy": policy}, "status": {"phase": phase},
        });
        if leaving {
            change["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        disk::end(&volume_with("v", change))
    };
    let remove = disk::End::Remove { node: "n1".into() };
    assert_eq!(volume("Released", "Delete", false), remove);
    assert_eq!(volume("Failed", "Delete", false), remove);
    assert_eq!(volume("Available", "Delete", true), remove);
    assert_eq!(volume("Released", "Retain", false), disk::End::Keep);
    assert_eq!(volume("Released", "Retain", true), disk::End::Leave);
    assert_eq!(volume("Bound", "Delete", true), disk::End::Keep);
}

#[test]
fn growth_is_told_step_by_step() {
    let made = json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "tug.local/disk"}}});
    let volume = volume_with("v", made);
    let claim = claim_with(json!({
        "spec": {"volumeName": "v", "resources": {"requests": {"storage": "2Gi"}}},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
    }));
    assert_eq!(expand::wanted(&claim, &volume), Some(2 << 30));
    let mut live = serde_json::to_value(&claim).unwrap();
    let mut tell = |progress| {
        let claim: PersistentVolumeClaim = serde_json::from_value(live.clone()).unwrap();
        let Some(Op::Patch { body, .. }) = expand::status(&claim, 2 << 30, progress, "2026-01-01T00:00:00Z") else {
            return "nothing new".to_owned();
        };
        merge(&mut live, &body);
        let status = &live["status"];
        let condition = status["conditions"][0]["type"].as_str().unwrap_or("-");
        let step = status["allocatedResourceStatuses"]["storage"].as_str().unwrap_or("-");
        format!("{condition} {step} {}", status["capacity"]["storage"].as_str().unwrap())
    };
    assert_eq!(tell(expand::Progress::Started), "Resizing ControllerResizeInProgress 1Gi");
    assert_eq!(tell(expand::Progress::Started), "nothing new");
    assert_eq!(tell(expand::Progress::Pending), "FileSystemResizePending NodeResizePending 1Gi");
    assert_eq!(tell(expand::Progress::Grown), "- - 2Gi");
    assert_eq!(tell(expand::Progress::Grown), "nothing new");
}

//! The Node object and its lease: registered at start, kept fresh by a lease every ten seconds and a status when something changes.

use crate::node::Node;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node as NodeObject, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
    NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LEASE_EVERY: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// The status is written this often even without a change.
const STATUS_EVERY: SignedDuration = SignedDuration::from_secs(300);
/// How often a ready node looks at itself; one that is not ready looks more often.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOK_UNREADY_EVERY: Duration = Duration::from_millis(200);
/// Images reported in the status.
const IMAGES_MAX: usize = 50;

/// Registers the node and keeps its status and lease fresh until `stop`.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    let lease = heartbeat(node.clone(), stop.clone());
    let status = keep_status(node, stop);
    tokio::join!(lease, status);
}

fn quantities(pairs: &[(&str, String)]) -> BTreeMap<String, Quantity> {
    pairs.iter().map(|(name, value)| ((*name).to_string(), Quantity(value.clone()))).collect()
}

async fn build_status(node: &Node, old: &NodeStatus, now: Timestamp) -> NodeStatus {
    let machine = &node.machine;
    let kib = |bytes: i64| format!("{}Ki", bytes / 1024);
    let milli = |m: i64| if m % 1000 == 0 { (m / 1000).to_string() } else { format!("{m}m") };
    let capacity = quantities(&[
        ("cpu", machine.cpus.to_string()),
        ("memory", kib(machine.memory_bytes)),
        ("ephemeral-storage", kib(machine.disk_bytes)),
        ("pods", machine.pods_max.to_string()),
        ("hugepages-1Gi", "0".into()),
        ("hugepages-2Mi", "0".into()),
    ]);
    let allocatable = quantities(&[
        ("cpu", milli(machine.cpus * 1000 - machine.reserved_cpu_milli)),
        ("memory", kib(i64::try_from(machine.allocatable_milli("memory") / 1000).unwrap_or(0))),
        ("ephemeral-storage", (machine.disk_bytes / 10 * 9).to_string()),
        ("pods", machine.pods_max.to_string()),
        ("hugepages-1Gi", "0".into()),
        ("hugepages-2Mi", "0".into()),
    ]);
    // What others added to the capacity (extended resources) stays, and all of it can be given to pods.
    let added = old.capacity.clone().unwrap_or_default();
    let with_added = |own: BTreeMap<String, Quantity>| {
        let mut all = added.clone();
        all.extend(own);
        all
    };
    let (name, version) = node.runtime.version().await.unwrap_or_default();
    let mut addresses: Vec<NodeAddress> =
        node.host_ips().into_iter().map(|address| NodeAddress { type_: "InternalIP".into(), address }).collect();
    addresses.push(NodeAddress { type_: "Hostname".into(), address: node.config.node_name.clone() });
    let architecture = architecture();
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(with_added(capacity)),
        allocatable: Some(with_added(allocatable)),
        conditions: Some(conditions(node, old, now).await),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(node.config.port) }),
        }),
        images: Some(images(node).await),
        node_info: Some(NodeSystemInfo {
            architecture: architecture.into(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: format!("{name}://{version}"),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: meta::version::GIT_VERSION.into(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".into(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.system_uuid.clone(),
            ..Default::default()
        }),
        ..old.clone()
    }
}

/// Go's name for this processor, which is Kubernetes' name.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn images(node: &Node) -> Vec<ContainerImage> {
    let mut list: Vec<ContainerImage> = node
        .runtime
        .images()
        .await
        .unwrap_or_default()
        .into_iter()
        .map(|image| ContainerImage {
            names: Some(image.repo_digests.into_iter().chain(image.repo_tags).collect()),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect();
    list.sort_by_key(|i| std::cmp::Reverse(i.size_bytes));
    list.truncate(IMAGES_MAX);
    list
}

async fn conditions(node: &Node, old: &NodeStatus, now: Timestamp) -> Vec<NodeCondition> {
    let standing = node.pressures.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let has = |condition: &str| standing.contains(&condition);
    let (memory, full, processes) = (has("MemoryPressure"), has("DiskPressure"), has("PIDPressure"));
    let not_ready = match node.runtime.not_ready().await {
        Ok(cause) => cause,
        Err(status) => Some(format!("container runtime is down: {}", status.message())),
    };
    let text = |s: &str| s.to_string();
    let mut wanted = vec![
        (
            "MemoryPressure",
            memory,
            match memory {
                true => ("KubeletHasInsufficientMemory", text("kubelet has insufficient memory available")),
                false => ("KubeletHasSufficientMemory", text("kubelet has sufficient memory available")),
            },
        ),
        (
            "DiskPressure",
            full,
            match full {
                true => ("KubeletHasDiskPressure", text("kubelet has disk pressure")),
                false => ("KubeletHasNoDiskPressure", text("kubelet has no disk pressure")),
            },
        ),
        (
            "PIDPressure",
            processes,
            match processes {
                true => ("KubeletHasInsufficientPID", text("kubelet has insufficient PID available")),
                false => ("KubeletHasSufficientPID", text("kubelet has sufficient PID available")),
            },
        ),
    ];
    wanted.push(match not_ready {
        None => ("Ready", true, ("KubeletReady", text("kubelet is posting ready status"))),
        Some(cause) => ("Ready", false, ("KubeletNotReady", cause)),
    });
    let held = old.conditions.clone().unwrap_or_default();
    let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut list: Vec<NodeCondition> =
        held.iter().filter(|c| !wanted.iter().any(|(kind, ..)| *kind == c.type_)).cloned().collect();
    for (kind, yes, (reason, message)) in wanted {
        let status = if yes { "True" } else { "False" };
        let before = held.iter().find(|c| c.type_ == kind && c.status == status);
        list.push(NodeCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_heartbeat_time: Some(Time(second)),
            last_transition_time: before.and_then(|c| c.last_transition_time.clone()).or(Some(Time(second))),
        });
    }
    list
}

fn labels(node: &Node) -> BTreeMap<String, String> {
    let mut labels = node.config.labels.clone();
    for (name, value) in [
        ("kubernetes.io/hostname", node.config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ] {
        labels.insert(name.into(), value.into());
    }
    labels
}

/// The Node object, made if it is not there.
async fn registered(node: &Node, nodes: &Api<NodeObject>) -> Result<NodeObject, kube::Error> {
    let name = &node.config.node_name;
    if let Some(found) = nodes.get_opt(name).await? {
        let missing = labels(node)
            .into_iter()
            .any(|(key, value)| found.metadata.labels.as_ref().and_then(|l| l.get(&key)) != Some(&value));
        if missing {
            let patch = json!({"metadata": {"labels": labels(node)}});
            return nodes.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        }
        return Ok(found);
    }
    let annotations =
        BTreeMap::from([("volumes.kubernetes.io/controller-managed-attach-detach".into(), "true".into())]);
    let object = NodeObject {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels(node)),
            annotations: Some(annotations),
            ..Default::default()
        },
        spec: Some(NodeSpec {
            taints: (!node.config.taints.is_empty()).then(|| node.config.taints.clone()),
            ..Default::default()
        }),
        status: Some(build_status(node, &NodeStatus::default(), Timestamp::now()).await),
    };
    nodes.create(&PostParams::default(), &object).await
}

/// The status without the times that change by themselves.
fn essence(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    status
}

async fn keep_status(node: Arc<Node>, stop: CancellationToken) {
    let nodes: Api<NodeObject> = Api::all(node.client.clone());
    let mut written: Option<(NodeStatus, Timestamp)> = None;
    loop {
        let now = Timestamp::now();
        let mut ready = false;
        match registered(&node, &nodes).await {
            Ok(object) => {
                let old = object.status.unwrap_or_default();
                let status = build_status(&node, &old, now).await;
                ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
                let fresh = written.as_ref().is_some_and(|(_, at)| now.duration_since(*at) < STATUS_EVERY);
                if !fresh || essence(&status) != essence(&old) {
                    let mut patch = json!({"status": status});
                    // Resources that are no longer in the capacity go by name.
                    for gone in old.allocatable.iter().flatten().map(|(name, _)| name) {
                        if status.allocatable.as_ref().is_some_and(|now| !now.contains_key(gone)) {
                            patch["status"]["allocatable"][gone] = serde_json::Value::Null;
                        }
                    }
                    let name = &node.config.node_name;
                    match nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                        Ok(_) => written = Some((status, now)),
                        Err(error) => tracing::warn!("cannot write the node's status: {error}"),
                    }
                }
            }
            Err(error) => tracing::warn!("cannot register the node, trying again: {error}"),
        }
        let pause = if ready { LOOK_EVERY } else { LOOK_UNREADY_EVERY };
        tokio::select! {
            () = stop.cancelled() => return,
            () = node.status_news.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn heartbeat(node: Arc<Node>, stop: CancellationToken) {
    let leases: Api<Lease> = Api::namespaced(node.client.clone(), LEASE_NAMESPACE);
    let nodes: Api<NodeObject> = Api::all(node.client.clone());
    let name = node.config.node_name.clone();
    loop {
        let pause = match renew(&leases, &nodes, &name).await {
            Ok(()) => LEASE_EVERY,
            Err(error) => {
                tracing::debug!("cannot renew the node's lease, trying again: {error}");
                Duration::from_millis(500)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn renew(leases: &Api<Lease>, nodes: &Api<NodeObject>, name: &str) -> Result<(), kube::Error> {
    let spec = LeaseSpec {
        holder_identity: Some(name.to_string()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..Default::default()
    };
    let patch = json!({"spec": spec});
    let held = match leases.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        other => Some(other?),
    };
    if held.as_ref().is_some_and(|lease| lease.metadata.owner_references.as_ref().is_some_and(|o| !o.is_empty())) {
        return Ok(());
    }
    // owned by the Node, so that the lease goes with it; the first lease may be older than the Node
    let owner = nodes.get_opt(name).await?.and_then(|n| n.metadata.uid).map(|uid| OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.to_string(),
        uid,
        ..Default::default()
    });
    if held.is_some() {
        let Some(owner) = owner else { return Ok(()) };
        let patch = json!({"metadata": {"ownerReferences": [owner]}});
        return leases.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop);
    }
    let metadata = ObjectMeta {
        name: Some(name.to_string()),
        namespace: Some(LEASE_NAMESPACE.into()),
        owner_references: owner.map(|o| vec![o]),
        ..Default::default()
    };
    leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await.map(drop)
}

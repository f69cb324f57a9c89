//! The small view of a pod that placement works on.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeAffinity, Pod, Toleration, TopologySpreadConstraint, Volume};

use crate::affinity::PodTerms;
use crate::resources::{Resources, pod_requests};
use crate::volumes::ClaimUse;

/// The reason of the condition by which a preempted pod is known.
pub const PREEMPTED_REASON: &str = "PreemptionByScheduler";

/// A port of the host that a container wants for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Two cannot be on one node: the same port of the same protocol on one address, where 0.0.0.0 is every address.
    pub fn collides(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// A disk that a pod names itself and that two nodes, or two pods, cannot write to at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub id: String,
    /// Read-only users can share it.
    pub shared: bool,
}

/// Disks by kind and name; an RBD image once per monitor.
fn disks(volume: &Volume) -> Vec<Disk> {
    let one = |id: String, shared: bool| vec![Disk { id, shared }];
    if let Some(disk) = &volume.gce_persistent_disk {
        return one(format!("gce/{}", disk.pd_name), disk.read_only == Some(true));
    }
    if let Some(disk) = &volume.aws_elastic_block_store {
        return one(format!("ebs/{}", disk.volume_id), false);
    }
    if let Some(disk) = &volume.iscsi {
        return one(format!("iscsi/{}", disk.iqn), disk.read_only == Some(true));
    }
    let Some(disk) = &volume.rbd else { return Vec::new() };
    let pool = disk.pool.as_deref().unwrap_or("rbd");
    let monitors = disk.monitors.iter();
    let shared = disk.read_only == Some(true);
    monitors.map(|monitor| Disk { id: format!("rbd/{monitor}/{pool}/{}", disk.image), shared }).collect()
}

fn claim_use(pod: &str, volume: &Volume) -> Option<ClaimUse> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(ClaimUse { claim: claim.claim_name.clone(), ephemeral: false });
    }
    volume.ephemeral.as_ref().map(|_| ClaimUse { claim: format!("{pod}-{}", volume.name), ephemeral: true })
}

#[derive(Clone, Debug, Default)]
pub struct PodInfo {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    /// The uid of the controlling owner: pods of one owner are spread.
    pub owner: Option<String>,
    pub deleting: bool,
    /// Succeeded or Failed: holds nothing of its node any more.
    pub finished: bool,
    pub priority: i32,
    /// Seconds since the epoch.
    pub created: i64,
    pub scheduler: String,
    pub node: Option<String>,
    pub gated: bool,
    pub requests: Resources,
    pub scored_requests: Resources,
    pub ports: Vec<HostPort>,
    pub node_selector: BTreeMap<String, String>,
    pub node_affinity: Option<NodeAffinity>,
    pub terms: PodTerms,
    pub tolerations: Vec<Toleration>,
    pub spread: Vec<TopologySpreadConstraint>,
    /// Of its containers.
    pub images: Vec<String>,
    /// Mounted as volumes.
    pub volume_images: Vec<String>,
    /// Volumes that are claims.
    pub claims: Vec<ClaimUse>,
    pub disks: Vec<Disk>,
    /// May push out pods of lower priority.
    pub preempts: bool,
    /// The node whose room is kept for it.
    pub nominated: Option<String>,
    /// When it started (seconds since the epoch), once a kubelet said so.
    pub started: Option<i64>,
    /// Was told to go in favour of a pod of higher priority.
    pub preempted: bool,
    pub generation: i64,
    /// The message of its PodScheduled=False condition, so that it is not written again.
    pub unschedulable_message: Option<String>,
}

impl PodInfo {
    pub fn new(pod: Pod) -> Self {
        let meta = pod.metadata;
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let labels = meta.labels.unwrap_or_default();
        let namespace = meta.namespace.unwrap_or_default();
        let own_name = meta.name.unwrap_or_default();
        let (requests, scored_requests) = pod_requests(&spec, &status);
        let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
        let volume_images = spec.volumes.iter().flatten().filter_map(|volume| volume.image.as_ref());
        let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten()).filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some(HostPort { ip: port.host_ip.clone().unwrap_or_default(), protocol, port: number })
        });
        let condition = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
        let preempted = status.conditions.iter().flatten().any(|c| {
            c.type_ == "DisruptionTarget" && c.status == "True" && c.reason.as_deref() == Some(PREEMPTED_REASON)
        });
        Self {
            generation: meta.generation.unwrap_or(0),
            owner: meta.owner_references.iter().flatten().find(|o| o.controller == Some(true)).map(|o| o.uid.clone()),
            ports: ports.collect(),
            claims: spec.volumes.iter().flatten().filter_map(|volume| claim_use(&own_name, volume)).collect(),
            disks: spec.volumes.iter().flatten().flat_map(disks).collect(),
            volume_images: volume_images.filter_map(|source| source.reference.clone()).collect(),
            images: containers().filter_map(|c| c.image.clone()).collect(),
            terms: PodTerms::new(spec.affinity.as_ref(), &namespace, &labels),
            namespace,
            name: own_name,
            uid: meta.uid.unwrap_or_default(),
            labels,
            deleting: meta.deletion_timestamp.is_some(),
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            priority: spec.priority.unwrap_or(0),
            created: meta.creation_timestamp.map_or(0, |time| time.0.as_second()),
            scheduler: spec.scheduler_name.unwrap_or_else(|| "default-scheduler".to_owned()),
            node: spec.node_name.filter(|name| !name.is_empty()),
            gated: spec.scheduling_gates.is_some_and(|gates| !gates.is_empty()),
            requests,
            scored_requests,
            node_selector: spec.node_selector.unwrap_or_default(),
            node_affinity: spec.affinity.and_then(|affinity| affinity.node_affinity),
            tolerations: spec.tolerations.unwrap_or_default(),
            spread: spec.topology_spread_constraints.unwrap_or_default(),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            nominated: status.nominated_node_name.filter(|name| !name.is_empty()),
            started: status.start_time.map(|time| time.0.as_second()),
            preempted,
            unschedulable_message: condition.and_then(|condition| condition.message.clone()),
        }
    }
}

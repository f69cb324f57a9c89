//! The built-in provisioner: a volume is a disk image on one node, with a file system of exactly the size asked for.
//!
//! What is decided here is which claims get a disk, where, and what their PersistentVolume says; a node makes, grows and
//! removes the image itself when it is asked to. The place of a CSI driver is beside this file: another provisioner with
//! the same three decisions.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::{
    PROVISIONED_BY, PROVISIONER, SELECTED_NODE, annotation, claim_reference, class_of_claim, mode, name,
    requested_bytes, uid, volume_of_claim, waits_for_consumer,
};
use crate::plan::to_value;

/// The provisioner of the default class.
pub const PROVISIONER_NAME: &str = "tug.local/disk";
/// The default class.
pub const CLASS_NAME: &str = "local";
/// Keeps a PersistentVolume until its disk is gone.
pub const FINALIZER: &str = "tug.local/disk";
/// The label of a node that its volumes select it by.
pub const NODE_LABEL: &str = "kubernetes.io/hostname";
/// On a volume: the node that holds its disk.
pub const NODE: &str = "tug.local/node";
/// Sizes are whole multiples of this.
const GRAIN_BYTES: i64 = 1 << 20;
/// A file system needs this much.
const SIZE_BYTES_MIN: i64 = 4 << 20;

/// A disk to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of disk and volume.
    pub name: String,
    /// Where; `None` leaves it to the provisioner.
    pub node: Option<String>,
    pub bytes: i64,
    /// Without a file system.
    pub block: bool,
}

/// What to do about a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is not ours, or not yet, or no longer.
    Nothing,
    Disk(Request),
    /// No disk can be what the claim asks for.
    Impossible(String),
}

/// Bytes as a disk has them.
pub fn rounded(bytes: i64) -> i64 {
    let bytes = bytes.max(SIZE_BYTES_MIN);
    bytes.saturating_add(GRAIN_BYTES - 1) / GRAIN_BYTES * GRAIN_BYTES
}

/// Bytes as a quantity.
pub fn quantity(bytes: i64) -> String {
    const UNITS: [(&str, i64); 4] = [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let unit = UNITS.iter().find(|(_, size)| bytes >= *size && bytes % size == 0);
    unit.map_or_else(|| bytes.to_string(), |(unit, size)| format!("{}{unit}", bytes / size))
}

/// The default class as a starting cluster makes it.
pub fn default_class_object() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": CLASS_NAME, "annotations": {super::DEFAULT_CLASS: "true"}},
        "provisioner": PROVISIONER_NAME, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
    })
}

/// Whether the claim needs a disk.
pub fn wanted(claim: &PersistentVolumeClaim, class: Option<&StorageClass>) -> Wanted {
    let ours = annotation(&claim.metadata, PROVISIONER) == Some(PROVISIONER_NAME);
    let Some(class) = class.filter(|class| ours && class.provisioner == PROVISIONER_NAME) else {
        return Wanted::Nothing;
    };
    if !volume_of_claim(claim).is_empty() || claim.metadata.deletion_timestamp.is_some() {
        return Wanted::Nothing;
    }
    let node = annotation(&claim.metadata, SELECTED_NODE).map(str::to_owned);
    if node.is_none() && waits_for_consumer(class) {
        return Wanted::Nothing;
    }
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.access_modes.iter().flatten().any(|mode| mode == "ReadWriteMany") {
        let why = "access mode ReadWriteMany: a disk of one node cannot be written to from others";
        return Wanted::Impossible(why.to_owned());
    }
    if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        return Wanted::Impossible("disks are made empty: dataSource is not supported".to_owned());
    }
    if spec.selector.is_some() {
        return Wanted::Impossible("claim Selector is not supported".to_owned());
    }
    if class.mount_options.as_ref().is_some_and(|options| !options.is_empty()) {
        return Wanted::Impossible("mountOptions of the class are not supported".to_owned());
    }
    for (key, value) in class.parameters.iter().flatten() {
        if !matches!((key.as_str(), value.as_str()), ("fsType" | "csi.storage.k8s.io/fstype", "ext4")) {
            return Wanted::Impossible(format!("invalid parameter of the class: {key}={value}"));
        }
    }
    Wanted::Disk(Request {
        name: format!("pvc-{}", uid(&claim.metadata)),
        node,
        bytes: rounded(requested_bytes(claim)),
        block: mode(spec.volume_mode.as_ref()) == "Block",
    })
}

/// The PersistentVolume of a disk that was made at `path` of a node.
pub fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    request: &Request,
    node: (&str, &str),
    path: &str,
) -> Value {
    let (node, hostname) = node;
    let spec = claim.spec.clone().unwrap_or_default();
    let mut reference = claim_reference(claim);
    reference.resource_version = claim.metadata.resource_version.clone();
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": request.name, "finalizers": [super::VOLUME_PROTECTION, FINALIZER],
            "annotations": {PROVISIONED_BY: PROVISIONER_NAME, NODE: node},
        },
        "spec": {
            "capacity": {"storage": quantity(request.bytes)},
            "accessModes": to_value(&spec.access_modes),
            "claimRef": to_value(&reference),
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class_of_claim(claim),
            "volumeMode": mode(spec.volume_mode.as_ref()),
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": NODE_LABEL, "operator": "In", "values": [hostname]}]}]}},
        },
    })
}

/// The node for a volume that no pod chose one for: of those that are ready and in the class's topology, the one with
/// the fewest disks.
pub fn choose<'a, 'b>(
    nodes: &[&'a Node],
    volumes: impl IntoIterator<Item = &'b PersistentVolume>,
    class: &StorageClass,
) -> Option<&'a str> {
    let mut disks: BTreeMap<&str, usize> = BTreeMap::new();
    for volume in volumes {
        *disks.entry(node_of(volume)).or_default() += 1;
    }
    let fit = nodes.iter().filter(|node| is_usable(node) && in_topology(node, class));
    let names = fit.map(|node| name(&node.metadata));
    names.min_by_key(|name| (disks.get(name).copied().unwrap_or(0), *name))
}

fn is_usable(node: &Node) -> bool {
    let spec = node.spec.clone().unwrap_or_default();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
    let tainted = spec.taints.iter().flatten().any(|taint| taint.effect != "PreferNoSchedule");
    ready && !tainted && spec.unschedulable != Some(true) && node.metadata.deletion_timestamp.is_none()
}

fn in_topology(node: &Node, class: &StorageClass) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    let has = |key: &String| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    terms.is_empty()
        || terms.iter().any(|term| {
            let mut all = term.match_label_expressions.iter().flatten();
            all.all(|one| has(&one.key).is_some_and(|value| one.values.contains(value)))
        })
}

/// What becomes of a volume's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It stays.
    Keep,
    /// Disk and volume go.
    Remove { node: String },
    /// The volume goes and leaves its disk behind, as its policy says.
    Leave,
}

/// Whether the volume was made here.
pub fn is_ours(volume: &PersistentVolume) -> bool {
    annotation(&volume.metadata, PROVISIONED_BY) == Some(PROVISIONER_NAME)
}

/// The node that holds the disk of a volume.
pub fn node_of(volume: &PersistentVolume) -> &str {
    annotation(&volume.metadata, NODE).unwrap_or_default()
}

/// Whether the disk of a volume is to go: its claim is gone, or the volume itself is being deleted.
pub fn end(volume: &PersistentVolume) -> End {
    let held = volume.metadata.finalizers.iter().flatten().any(|known| known == FINALIZER);
    if !is_ours(volume) || !held {
        return End::Keep;
    }
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    let leaving = volume.metadata.deletion_timestamp.is_some();
    match (phase, policy) {
        (Some("Released" | "Failed"), Some("Delete")) => End::Remove { node: node_of(volume).to_owned() },
        // Another finalizer keeps it while a claim is bound to it.
        (phase, Some("Delete")) if leaving && phase != Some("Bound") => {
            End::Remove { node: node_of(volume).to_owned() }
        }
        (phase, _) if leaving && phase != Some("Bound") => End::Leave,
        _ => End::Keep,
    }
}

/// The finalizers without the provisioner's own.
pub fn without_finalizer(volume: &PersistentVolume) -> Vec<&str> {
    let all = volume.metadata.finalizers.iter().flatten().map(String::as_str);
    all.filter(|known| *known != FINALIZER).collect()
}

//! Disk space: file systems as a whole, and what volumes, logs and writable layers take. Walks are dear, so their results are kept.

use crate::node::Node;
use crate::runtime::cri;
use crate::{sandbox, volumes};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Volume};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Files that one walk looks at; a larger tree is reported as large as what was seen.
const FILES_MAX: u64 = 1_000_000;
/// Bytes of a block in `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Size and room of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes left.
    pub available: u64,
    /// Bytes in use.
    pub used: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Inodes left.
    pub inodes_free: u64,
}

/// The file system at `path`; nothing where there is none.
pub fn file_system(path: &Path) -> FileSystem {
    let Ok(stat) = nix::sys::statvfs::statvfs(path) else { return FileSystem::default() };
    let unit = stat.fragment_size();
    FileSystem {
        capacity: stat.blocks().saturating_mul(unit),
        available: stat.blocks_available().saturating_mul(unit),
        used: stat.blocks().saturating_sub(stat.blocks_free()).saturating_mul(unit),
        inodes: stat.files(),
        inodes_free: stat.files_free(),
    }
}

/// What a directory tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Bytes of allocated blocks.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl std::ops::AddAssign for Tree {
    fn add_assign(&mut self, other: Tree) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// Walks a tree within its file system; links are not followed and files with several names count once.
pub fn tree(root: &Path) -> Tree {
    let mut total = Tree::default();
    let mut linked = HashSet::new();
    let Ok(top) = fs::symlink_metadata(root) else { return total };
    let mut left = vec![root.to_path_buf()];
    total += Tree { bytes: top.blocks() * BLOCK_BYTES, inodes: 1 };
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != top.dev() || (!meta.is_dir() && meta.nlink() > 1 && !linked.insert(meta.ino())) {
                continue;
            }
            total += Tree { bytes: meta.blocks() * BLOCK_BYTES, inodes: 1 };
            if total.inodes >= FILES_MAX {
                return total;
            }
            if meta.is_dir() {
                left.push(entry.path());
            }
        }
    }
    total
}

/// A volume of a pod and what it takes.
#[derive(Clone, Debug)]
pub struct VolumeUse {
    /// Name in the pod.
    pub name: String,
    /// The claim behind it.
    pub claim: Option<String>,
    /// Whether it lies in memory.
    pub in_memory: bool,
    /// What is in it.
    pub tree: Tree,
    /// Where it lies.
    pub file_system: FileSystem,
}

/// What one pod takes on the node's disk.
#[derive(Clone, Debug, Default)]
pub struct PodStorage {
    /// Volumes that the node makes for the pod.
    pub volumes: Vec<VolumeUse>,
    /// Logs by container name.
    pub logs: BTreeMap<String, Tree>,
}

impl PodStorage {
    /// Everything on the disk that goes with the pod, but its writable layers.
    pub fn total(&self) -> Tree {
        let mut total = Tree::default();
        let on_disk = self.volumes.iter().filter(|v| !v.in_memory && v.claim.is_none()).map(|v| v.tree);
        on_disk.chain(self.logs.values().copied()).for_each(|tree| total += tree);
        total
    }
}

/// Host path of a volume that the node makes; `None` for others (host paths).
fn made_path(node: &Node, uid: &str, volume: &Volume) -> Option<PathBuf> {
    let plugin = match volume {
        Volume { empty_dir: Some(_), .. } => "empty-dir",
        Volume { config_map: Some(_), .. } => "configmap",
        Volume { secret: Some(_), .. } => "secret",
        Volume { projected: Some(_), .. } => "projected",
        Volume { downward_api: Some(_), .. } => "downward-api",
        _ => return None,
    };
    Some(volumes::pod_dir(node, uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(&volume.name))
}

/// The volume behind a claim: its file system says what is in it, without a walk.
fn claimed(node: &Node, uid: &str, volume: &Volume, claim: String) -> Option<VolumeUse> {
    let path = volumes::claimed_dir(node, uid, &volume.name);
    let mut found = file_system(&path);
    if !path.exists() || found.capacity == 0 {
        return None;
    }
    let held = node.disks.held_back(&path);
    found.capacity = found.capacity.saturating_sub(held);
    found.used = found.used.saturating_sub(held);
    let tree = Tree { bytes: found.used, inodes: found.inodes.saturating_sub(found.inodes_free) };
    Some(VolumeUse { name: volume.name.clone(), claim: Some(claim), in_memory: false, tree, file_system: found })
}

/// Walks the pod's volumes and logs. Blocks.
pub fn measure(node: &Node, pod: &Pod) -> PodStorage {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let mut storage = PodStorage::default();
    let list = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    for volume in list {
        if let Some(claim) = volumes::claim_name(pod, volume) {
            storage.volumes.extend(claimed(node, uid, volume, claim));
            continue;
        }
        let Some(path) = made_path(node, uid, volume) else { continue };
        let in_memory = volume.secret.is_some()
            || volume.projected.is_some()
            || volume.empty_dir.as_ref().is_some_and(|e| e.medium.as_deref() == Some("Memory"));
        storage.volumes.push(VolumeUse {
            name: volume.name.clone(),
            claim: None,
            in_memory,
            tree: tree(&path),
            file_system: file_system(&path),
        });
    }
    for entry in fs::read_dir(sandbox::log_directory(node, pod)).into_iter().flatten().flatten() {
        storage.logs.insert(entry.file_name().to_string_lossy().into_owned(), tree(&entry.path()));
    }
    storage
}

/// Walks of the last minute, by pod uid.
#[derive(Default)]
pub struct Cache {
    pods: Mutex<HashMap<String, (Timestamp, Arc<PodStorage>)>>,
}

impl Cache {
    /// The pod's storage, walked again if the last walk is older than `age_max`. Blocks.
    pub fn pod(&self, node: &Node, pod: &Pod, age_max: SignedDuration) -> Arc<PodStorage> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let now = Timestamp::now();
        let lock = || self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, storage)) = lock().get(&uid)
            && now.duration_since(*at).abs() < age_max
        {
            return storage.clone();
        }
        let storage = Arc::new(measure(node, pod));
        let mut pods = lock();
        pods.retain(|uid, _| node.registry.get(uid).is_some());
        pods.insert(uid, (now, storage.clone()));
        storage
    }
}

/// Bytes and inodes of writable layers by container id, as the runtime counts them.
pub async fn layers(node: &Node) -> HashMap<String, Tree> {
    let list = node.runtime.raw().list_container_stats(cri::ListContainerStatsRequest::default()).await;
    let stats = match list {
        Ok(reply) => reply.into_inner().stats,
        Err(status) => {
            tracing::debug!("the runtime has no container statistics: {status}");
            return HashMap::new();
        }
    };
    let value = |v: Option<cri::UInt64Value>| v.map_or(0, |v| v.value);
    let entry = |stats: cri::ContainerStats| {
        let layer = stats.writable_layer?;
        let tree = Tree { bytes: value(layer.used_bytes), inodes: value(layer.inodes_used) };
        Some((stats.attributes?.id, tree))
    };
    stats.into_iter().filter_map(entry).collect()
}

/// Bytes and inodes of all images, and where they lie.
pub async fn images(node: &Node) -> Option<(Tree, PathBuf)> {
    let reply = node.runtime.raw_images().image_fs_info(cri::ImageFsInfoRequest::default()).await.ok()?.into_inner();
    let first = reply.image_filesystems.into_iter().next()?;
    let value = |v: Option<cri::UInt64Value>| v.map_or(0, |v| v.value);
    let tree = Tree { bytes: value(first.used_bytes), inodes: value(first.inodes_used) };
    Some((tree, PathBuf::from(first.fs_id?.mountpoint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let empty = tree(dir.path());
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), vec![1u8; 100_000]).unwrap();
        let one = tree(dir.path());
        assert_eq!(one.inodes, empty.inodes + 2);
        assert!(one.bytes >= empty.bytes + 100_000, "{one:?}");
        fs::hard_link(dir.path().join("d/f"), dir.path().join("g")).unwrap();
        assert_eq!(tree(dir.path()).inodes, one.inodes);
        assert_eq!(tree(&dir.path().join("missing")), Tree::default());
    }
}

//! Volumes of a pod on this node: made before its sandbox, kept up to date while it runs, removed after it.

pub mod atomic;
pub mod disk;
#[cfg(test)]
mod disk_tests;
mod loops;
mod mounts;
mod nfs;
mod ownership;
mod payload;
mod persistent;
mod subpath;

use crate::node::Node;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};
use nix::mount::{MntFlags, MsFlags};
pub use persistent::{claim_name, claimed_dir};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
pub use subpath::bind_subpath;

/// What image volumes need.
const RUNTIME_NEEDED: &str = "containerd 2.1 or newer is needed";

/// Host path of each volume by name; of a block volume its device.
pub type Paths = BTreeMap<String, PathBuf>;

/// What a set-up leaves to do.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Host paths.
    pub paths: Paths,
    /// When a token has to be renewed.
    pub refresh_at: Option<Timestamp>,
}

/// Why a volume could not be made: its name and the cause.
#[derive(Debug)]
pub struct VolumeError {
    /// The volume's name.
    pub volume: String,
    /// The cause, as in `FailedMount` events.
    pub cause: String,
}

/// The pod's directory on this node.
pub fn pod_dir(node: &Node, uid: &str) -> PathBuf {
    node.config.root_dir.join("pods").join(uid)
}

/// Group that owns the pod's volumes.
fn group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// Makes all volumes of the pod, or brings them up to date. Safe to repeat.
///
/// # Errors
/// The first volume that cannot be made.
pub async fn prepare(node: &Node, pod: &Pod) -> Result<Prepared, VolumeError> {
    let mut prepared = Prepared::default();
    let Some(spec) = &pod.spec else { return Ok(prepared) };
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    for volume in spec.volumes.iter().flatten() {
        let result = one(node, pod, uid, volume, &mut prepared.refresh_at).await;
        let path = result.map_err(|cause| VolumeError { volume: volume.name.clone(), cause })?;
        prepared.paths.insert(volume.name.clone(), path);
    }
    Ok(prepared)
}

async fn one(
    node: &Node,
    pod: &Pod,
    uid: &str,
    volume: &Volume,
    refresh_at: &mut Option<Timestamp>,
) -> Result<PathBuf, String> {
    if let Some(source) = &volume.host_path {
        return host_path(source);
    }
    let dir =
        |plugin: &str| pod_dir(node, uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(&volume.name);
    if let Some(source) = &volume.empty_dir {
        let path = dir("empty-dir");
        empty_dir(&path, source, group(pod)).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
        return Ok(path);
    }
    if let Some(claim) = persistent::claim_name(pod, volume) {
        return persistent::claimed(node, pod, volume, &claim).await;
    }
    if let Some(source) = &volume.nfs {
        let path = dir("nfs");
        nfs::mount(source, &[], false, &path).await?;
        return Ok(path);
    }
    if volume.image.is_some() {
        return Err(format!("image volumes are not supported by the container runtime ({RUNTIME_NEEDED})"));
    }
    let (plugin, files) = payload::payload(node, pod, volume, refresh_at).await?;
    let path = dir(plugin);
    // secrets stay in memory: they must not reach the disk
    if plugin != "configmap" && plugin != "downward-api" {
        tmpfs(&path, None).map_err(|e| format!("cannot mount tmpfs on {}: {e}", path.display()))?;
    }
    let stamp = Timestamp::now().as_nanosecond().unsigned_abs();
    let written = atomic::write(&path, &files, group(pod), stamp);
    written.map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    Ok(path)
}

fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf, String> {
    let path = PathBuf::from(&source.path);
    let meta = fs::metadata(&path).ok();
    let is = |test: fn(&fs::FileType) -> bool| meta.as_ref().is_some_and(|m| test(&m.file_type()));
    let fail = |word: &str| Err(format!("hostPath type check failed: {} is not {word}", path.display()));
    match source.type_.as_deref().unwrap_or("") {
        "DirectoryOrCreate" if meta.is_none() => {
            fs::create_dir_all(&path).map_err(|e| format!("cannot create {}: {e}", path.display()))?;
        }
        "FileOrCreate" if meta.is_none() => {
            fs::File::create(&path).map_err(|e| format!("cannot create {}: {e}", path.display()))?;
        }
        "Directory" | "DirectoryOrCreate" if !is(fs::FileType::is_dir) => return fail("a directory"),
        "File" | "FileOrCreate" if !is(fs::FileType::is_file) => return fail("a file"),
        "Socket" if !is(fs::FileType::is_socket) => return fail("a socket file"),
        "CharDevice" if !is(fs::FileType::is_char_device) => return fail("a character device"),
        "BlockDevice" if !is(fs::FileType::is_block_device) => return fail("a block device"),
        _ => {}
    }
    Ok(path)
}

fn empty_dir(path: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> std::io::Result<()> {
    let in_memory = source.medium.as_deref() == Some("Memory");
    let fresh = !path.exists() || (in_memory && !is_mounted(path));
    if in_memory {
        tmpfs(path, source.size_limit.as_ref().map(podsync::quantity_bytes))?;
    } else {
        fs::create_dir_all(path)?;
    }
    if fresh {
        // Volumes in memory are born sticky, and stay so.
        let sticky = fs::metadata(path)?.permissions().mode() & 0o1000;
        let mode = sticky | if group.is_some() { 0o2777 } else { 0o777 };
        chown(path, None, group)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Whether something is mounted at this path.
fn is_mounted(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(own), Some(Ok(parent))) = (fs::metadata(path), path.parent().map(fs::metadata)) else { return false };
    own.dev() != parent.dev()
}

fn tmpfs(path: &Path, size: Option<i64>) -> std::io::Result<()> {
    fs::create_dir_all(path)?;
    if is_mounted(path) {
        return Ok(());
    }
    let options = size.filter(|s| *s > 0).map(|s| format!("size={s}"));
    nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), options.as_deref())?;
    Ok(())
}

/// Unmounts and deletes everything of a pod.
///
/// # Errors
/// When a mount is still in use; the caller tries again.
pub fn remove(dir: &Path) -> std::io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let all = mounts::list()?.into_iter().map(|mount| mount.at);
    let mut below: Vec<PathBuf> = all.filter(|at| at.starts_with(dir)).collect();
    below.sort_by_key(|p| std::cmp::Reverse(p.as_os_str().len()));
    for path in below {
        nix::mount::umount2(&path, MntFlags::UMOUNT_NOFOLLOW).or_else(|_| {
            // a lazy unmount is right here: no container of the pod is left that could write
            nix::mount::umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
        })?;
    }
    fs::remove_dir_all(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_in_memory_is_sticky_and_its_groups_also_after_the_machine_began_anew() {
        if !nix::unistd::geteuid().is_root() {
            return println!("skipped: mounting needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        let mode = |medium: &str, path: &Path| {
            let source = EmptyDirVolumeSource { medium: Some(medium.to_owned()), size_limit: None };
            empty_dir(path, &source, Some(7)).unwrap();
            use std::os::unix::fs::MetadataExt;
            let facts = fs::metadata(path).unwrap();
            (facts.mode() & 0o7777, facts.gid())
        };
        for _ in 0..2 {
            assert_eq!(mode("Memory", &path), (0o3777, 7));
            nix::mount::umount(&path).unwrap();
        }
        assert_eq!(mode("", &dir.path().join("disk")), (0o2777, 7));
    }
}

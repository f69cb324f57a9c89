//! Volumes behind claims: finds the PersistentVolume of a claim and brings it to the pod.
//!
//! Every kind of PersistentVolume is one arm of [`Source`]. A CSI driver is the arm that is still empty: its
//! NodeStageVolume and NodePublishVolume belong where `Disk` mounts and binds, its devices where `Block` attaches.

use super::disk::{DiskError, Disks};
use super::{mounts, ownership};
use crate::node::Node;
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NFSVolumeSource, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod, Volume,
};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The provisioner whose volumes are disks of this node.
const DISK_PROVISIONER: &str = "tug.local/disk";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// A pod that was bound by hand may come before its claim is: how often, and how soon, that is looked at again before
/// the pod is told to wait.
const BOUND_LOOKS_MAX: u32 = 10;
const BOUND_LOOK_PAUSE: Duration = Duration::from_millis(200);

/// What stands behind a PersistentVolume.
enum Source<'a> {
    HostPath(&'a HostPathVolumeSource),
    /// A directory or device of this node.
    Local(&'a str),
    /// A disk of this node, by name.
    Disk(&'a str),
    Nfs(&'a NFSVolumeSource),
    /// A driver's volume: no driver can register with this node yet.
    Csi(&'a str),
    Unknown,
}

fn source(volume: &PersistentVolume) -> Source<'_> {
    let Some(spec) = &volume.spec else { return Source::Unknown };
    let made_here = volume.metadata.annotations.as_ref().and_then(|all| all.get(PROVISIONED_BY));
    if let Some(local) = &spec.local {
        return match &volume.metadata.name {
            Some(name) if made_here.is_some_and(|by| by == DISK_PROVISIONER) => Source::Disk(name),
            _ => Source::Local(&local.path),
        };
    }
    if let Some(source) = &spec.host_path {
        return Source::HostPath(source);
    }
    match (&spec.nfs, &spec.csi) {
        (Some(source), _) => Source::Nfs(source),
        (_, Some(source)) => Source::Csi(&source.driver),
        _ => Source::Unknown,
    }
}

/// The claim of a volume: named, or made for the pod.
pub fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(claim.claim_name.clone());
    }
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    volume.ephemeral.as_ref().map(|_| format!("{pod}-{}", volume.name))
}

/// Brings the volume behind a claim to the pod's directory and answers where it is: a directory, or a device.
pub async fn claimed(node: &Node, pod: &Pod, volume: &Volume, claim_name: &str) -> Result<PathBuf, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let place = Place::new(node, pod, volume);
    if let Some(found) = place.found() {
        return Ok(found);
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(node.client.clone(), namespace);
    let claim = bound_claim(&claims, claim_name).await?;
    check_owner(pod, volume, &claim)?;
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("error processing PVC {namespace}/{claim_name}: PVC is being deleted"));
    }
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|name| !name.is_empty());
    let Some(name) = name.filter(|_| phase == Some("Bound")) else {
        return Err(format!("error processing PVC {namespace}/{claim_name}: PVC is not bound"));
    };
    let volumes: Api<PersistentVolume> = Api::all(node.client.clone());
    let found = volumes.get(&name).await;
    let found = found.map_err(|e| format!("failed to fetch PV {name} from API server: {e}"))?;
    let spec = found.spec.clone().unwrap_or_default();
    let reference = spec.claim_ref.as_ref().and_then(|claim| claim.uid.as_ref());
    if reference != claim.metadata.uid.as_ref() {
        return Err(format!("PV {name} spec.pvcRef.uid does not match the UID of PVC {namespace}/{claim_name}"));
    }
    let block = spec.volume_mode.as_deref() == Some("Block");
    check_mode(pod, &volume.name, block)?;
    let path = place.bring(&found, &spec, block).await?;
    finish_growth(&claims, claim_name, &claim, &spec).await;
    Ok(path)
}

/// The claim, as soon as it is bound; a node may read its pods' claims but not watch them.
async fn bound_claim(claims: &Api<PersistentVolumeClaim>, name: &str) -> Result<PersistentVolumeClaim, String> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let claim = claims.get(name).await.map_err(|e| format!("failed to fetch PVC from API server: {e}"))?;
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Bound") || attempt == BOUND_LOOKS_MAX || claim.metadata.deletion_timestamp.is_some() {
            return Ok(claim);
        }
        tokio::time::sleep(BOUND_LOOK_PAUSE).await;
    }
}

/// An ephemeral volume's claim must be the pod's own.
fn check_owner(pod: &Pod, volume: &Volume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let owners = claim.metadata.owner_references.iter().flatten();
    let owned = owners.into_iter().any(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref());
    if volume.ephemeral.is_none() || owned {
        return Ok(());
    }
    let meta = |meta: &kube::core::ObjectMeta| {
        format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    };
    let (claim, pod) = (meta(&claim.metadata), meta(&pod.metadata));
    Err(format!("PVC {claim} was not created for pod {pod} (pod is not owner)"))
}

/// A file system is mounted, a device is given: not the other way round.
fn check_mode(pod: &Pod, volume: &str, block: bool) -> Result<(), String> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let mut containers = podsync::all_containers(spec).map(|(_, container)| container);
    let (mut mounted, mut given) = (false, false);
    for container in containers.by_ref() {
        mounted |= container.volume_mounts.iter().flatten().any(|mount| mount.name == volume);
        given |= container.volume_devices.iter().flatten().any(|device| device.name == volume);
    }
    match (block, mounted, given) {
        (true, true, _) => Err(format!("volume {volume} has volumeMode Block, but is specified in volumeMounts")),
        (false, _, true) => {
            Err(format!("volume {volume} has volumeMode Filesystem, but is specified in volumeDevices"))
        }
        _ => Ok(()),
    }
}

/// Where the directory of a claim's volume appears in a pod's own.
pub fn claimed_dir(node: &Node, uid: &str, volume: &str) -> PathBuf {
    super::pod_dir(node, uid).join("volumes/kubernetes.io~local-volume").join(volume)
}

/// A claim's volume in a pod's directory.
struct Place<'a> {
    node: &'a Node,
    pod: &'a Pod,
    volume: &'a Volume,
    dir: PathBuf,
}

impl<'a> Place<'a> {
    fn new(node: &'a Node, pod: &'a Pod, volume: &'a Volume) -> Self {
        let dir = super::pod_dir(node, pod.metadata.uid.as_deref().unwrap_or_default());
        Self { node, pod, volume, dir }
    }

    fn mounted_at(&self) -> PathBuf {
        claimed_dir(self.node, self.pod.metadata.uid.as_deref().unwrap_or_default(), &self.volume.name)
    }

    fn linked_at(&self) -> PathBuf {
        self.dir.join("volumeDevices/kubernetes.io~local-volume").join(&self.volume.name)
    }

    /// What was brought before.
    fn found(&self) -> Option<PathBuf> {
        if let Ok(device) = std::fs::read_link(self.linked_at()) {
            // After a restart of the machine the device may be another one, or none.
            return Path::new("/sys/block")
                .join(device.file_name()?)
                .join("loop/backing_file")
                .exists()
                .then_some(device);
        }
        let at = self.mounted_at();
        mounts::is_mounted(&at).unwrap_or(false).then_some(at)
    }

    fn read_only(&self) -> bool {
        self.volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true))
    }

    async fn bring(
        &self,
        volume: &PersistentVolume,
        spec: &PersistentVolumeSpec,
        block: bool,
    ) -> Result<PathBuf, String> {
        match source(volume) {
            Source::HostPath(source) => super::host_path(source),
            Source::Local(path) if block => self.device(Path::new(path)),
            Source::Local(path) => {
                let path = PathBuf::from(path);
                if !path.exists() {
                    return Err(format!("path \"{}\" does not exist", path.display()));
                }
                self.show(&path)
            }
            Source::Disk(name) => {
                let (disks, name) = (self.node.disks.clone(), name.to_owned());
                let made = tokio::task::spawn_blocking(move || prepare_disk(&disks, &name, block));
                let path =
                    made.await.map_err(|e| e.to_string())?.map_err(|e| format!("{:#}", anyhow::Error::new(e)))?;
                if block { self.device(&path) } else { self.show(&path) }
            }
            Source::Nfs(source) => {
                let at = self.mounted_at();
                let options = spec.mount_options.clone().unwrap_or_default();
                super::nfs::mount(source, &options, self.read_only(), &at).await?;
                Ok(at)
            }
            Source::Csi(driver) => Err(format!("driver name {driver} not found in the list of registered CSI drivers")),
            Source::Unknown => Err("no volume plugin matched".to_owned()),
        }
    }

    /// Binds a directory into the pod's own, as its group's.
    fn show(&self, path: &Path) -> Result<PathBuf, String> {
        let at = self.mounted_at();
        let read_only = self.read_only();
        if let Some(group) = super::group(self.pod).filter(|_| !read_only) {
            let context = self.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
            let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
            let given = ownership::give(path, group, policy == Some("OnRootMismatch"));
            given.map_err(|e| format!("applyFSGroup failed for vol {}: {e}", self.volume.name))?;
        }
        mounts::bind(path, &at, read_only).map_err(|e| format!("cannot bind {}: {e}", path.display()))?;
        Ok(at)
    }

    /// Links a device into the pod's directory: by that it is known to be in use.
    fn device(&self, path: &Path) -> Result<PathBuf, String> {
        let at = self.linked_at();
        let linked = at.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
            let _ = std::fs::remove_file(&at);
            symlink(path, &at)
        });
        linked.map_err(|e| format!("cannot link {}: {e}", path.display()))?;
        Ok(path.to_path_buf())
    }
}

fn prepare_disk(disks: &Disks, name: &str, block: bool) -> Result<PathBuf, DiskError> {
    if block { disks.attach(name) } else { disks.mount(name) }
}

/// A file system that had to wait for its mount has its size now.
async fn finish_growth(
    claims: &Api<PersistentVolumeClaim>,
    name: &str,
    claim: &PersistentVolumeClaim,
    spec: &PersistentVolumeSpec,
) {
    let conditions = claim.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    if !conditions.iter().any(|condition| condition.type_ == "FileSystemResizePending") {
        return;
    }
    let kept: Vec<_> = conditions.iter().filter(|one| one.type_ != "FileSystemResizePending").collect();
    let status = json!({
        "metadata": {"uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version},
        "status": {"capacity": spec.capacity, "conditions": kept, "allocatedResourceStatuses": null},
    });
    if let Err(error) = claims.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await {
        // The next set-up of a pod tells it again.
        tracing::warn!(claim = name, %error, "cannot write the new size of a claim");
    }
}

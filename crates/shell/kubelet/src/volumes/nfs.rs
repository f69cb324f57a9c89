//! NFS volumes, where kernel and mount helper are there.

use super::mounts;
use k8s_openapi::api::core::v1::NFSVolumeSource;
use std::path::Path;
use std::time::Duration;

/// A server that does not answer must not hold a pod's set-up for ever; it is tried again.
const MOUNT_WITHIN: Duration = Duration::from_secs(60);

/// Mounts the export at `at`. Safe to repeat.
///
/// # Errors
/// What is missing on this node, or what the mount helper says.
pub async fn mount(source: &NFSVolumeSource, options: &[String], read_only: bool, at: &Path) -> Result<(), String> {
    if mounts::is_mounted(at).unwrap_or(false) {
        return Ok(());
    }
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.lines().any(|line| matches!(line.split_whitespace().last(), Some("nfs" | "nfs4"))) {
        return Err("mount failed: the kernel of this node has no NFS client (nfs is not in /proc/filesystems)".into());
    }
    std::fs::create_dir_all(at).map_err(|e| format!("cannot make {}: {e}", at.display()))?;
    let mut all = options.to_vec();
    if read_only || source.read_only == Some(true) {
        all.push("ro".to_owned());
    }
    let mut command = tokio::process::Command::new("mount");
    command.args(["-t", "nfs"]).kill_on_drop(true);
    if !all.is_empty() {
        command.args(["-o", &all.join(",")]);
    }
    command.arg(format!("{}:{}", source.server, source.path)).arg(at);
    let output = match tokio::time::timeout(MOUNT_WITHIN, command.output()).await {
        Ok(output) => output.map_err(|e| format!("cannot run mount: {e}"))?,
        Err(_) => return Err(format!("mount failed: no answer from {} within {MOUNT_WITHIN:?}", source.server)),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(format!("mount failed: {said} (the helper mount.nfs comes with nfs-common)"))
}

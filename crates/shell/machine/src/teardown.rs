//! Taking a node down by what belongs to it: its cgroup, its containerd socket, its mounts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

use crate::{namespaces, processes};

/// How long containers have between SIGTERM and SIGKILL when a whole node goes down.
pub const CONTAINER_GRACE: Duration = Duration::from_secs(10);
const DAEMON_GRACE: Duration = Duration::from_secs(3);

/// What a node left on the machine.
#[derive(Clone, Debug)]
pub struct Remains {
    /// The cgroup above all of the node's pods.
    pub cgroup: String,
    /// Directory of its private containerd.
    pub containerd: PathBuf,
    /// The file that holds the node's mount namespace, where it has one.
    pub mounts: PathBuf,
    /// Everything the node mounted lies below.
    pub dir: PathBuf,
}

/// Ends containers, shims and containerd, and lets mounts and cgroups go. The node's agent must have ended before.
pub fn node(remains: &Remains) {
    processes::end(&processes::in_cgroup(&remains.cgroup), CONTAINER_GRACE);
    processes::end(&processes::given(&remains.containerd), DAEMON_GRACE);
    namespaces::release_mounts(&remains.mounts);
    unmount_below(&remains.dir);
    detach_below(&remains.dir);
    for dir in processes::cgroup_dirs(&remains.cgroup) {
        let _ = fs::remove_dir(dir);
    }
}

/// Unmounts everything below a directory, last mounted first.
pub fn unmount_below(dir: &Path) {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return };
    let points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    for point in points.iter().rev().filter(|point| Path::new(point).starts_with(dir)) {
        let _ = umount2(*point, MntFlags::MNT_DETACH);
    }
}

/// Gives back the loop devices over files below a directory that no mount holds any more.
pub fn detach_below(dir: &Path) {
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if Path::new(backing.trim_end()).starts_with(dir) {
            // A device that is in use goes with its last user.
            let device = Path::new("/dev").join(entry.file_name());
            let _ = crate::programs::run("losetup", &["-d", &device.display().to_string()]);
        }
    }
}

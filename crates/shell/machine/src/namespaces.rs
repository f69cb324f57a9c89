//! Entering the network, host name and mount namespaces of a node, before the process has threads.
//!
//! A node's mount namespace is persistent: it is held by a file, so that a restarted containerd or Tug finds the mounts
//! of running pods again. In it `/` is shared, which containers with mount propagation need, and `/sys` belongs to the
//! node's network namespace while the cgroup mounts stay. A node that lives in the machine's own network namespace on a
//! machine whose `/` is shared already needs none.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, statfs};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, gethostname, sethostname};

use crate::{MachineError, Result, file, system};

const NSFS_MAGIC: FsType = FsType(0x6e73_6673);
const NONE: Option<&str> = None;

/// Enters the network namespace held by this file.
///
/// # Errors
/// The file is no network namespace, or the process may not enter it.
pub fn enter_network(path: &Path) -> Result<()> {
    let handle = File::open(path).map_err(file("open the network namespace", path))?;
    setns(handle.as_fd(), CloneFlags::CLONE_NEWNET).map_err(system("enter the network namespace"))
}

/// Names the host as the node is named, in a namespace of this process where that is another name: pods that share the
/// node's network expect its name. Must run before the process starts threads.
///
/// # Errors
/// The namespace was refused (root is needed), or the name is longer than the kernel's 64 characters.
pub fn own_hostname(name: &str) -> Result<()> {
    if gethostname().is_ok_and(|own| own == name) {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUTS).map_err(system("unshare the hostname"))?;
    sethostname(name).map_err(system("set the hostname"))
}

/// Whether mounts made here propagate by default, as they do under systemd.
pub fn root_is_shared() -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    let root = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/"));
    root.is_some_and(|line| line.split(" - ").next().unwrap_or_default().contains(" shared:"))
}

/// Enters the mount namespace held by `holder`, making it first where it does not exist. Must run before the process
/// starts threads. With `own_sys`, `/sys` becomes that of the current network namespace.
///
/// # Errors
/// A mount or namespace call was refused: root is needed.
pub fn enter_mounts(holder: &Path, own_sys: bool) -> Result<()> {
    if !is_held(holder) {
        create_mounts(holder, own_sys)?;
    }
    let handle = File::open(holder).map_err(file("open the mount namespace", holder))?;
    setns(handle.as_fd(), CloneFlags::CLONE_NEWNS).map_err(system("enter the mount namespace"))
}

/// Whether a namespace is held by this file.
pub fn is_held(holder: &Path) -> bool {
    statfs(holder).is_ok_and(|s| s.filesystem_type() == NSFS_MAGIC)
}

/// Lets the namespace go; its mounts vanish with its last process.
pub fn release_mounts(holder: &Path) {
    let _ = umount2(holder, MntFlags::MNT_DETACH);
    if let Some(parent) = holder.parent() {
        let _ = umount2(parent, MntFlags::MNT_DETACH);
    }
    let _ = fs::remove_file(holder);
}

fn create_mounts(holder: &Path, own_sys: bool) -> Result<()> {
    let parent = holder.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(file("create", parent))?;
    // A namespace may only be held on a mount that does not propagate into the namespace itself.
    mount(Some(parent), parent, NONE, MsFlags::MS_BIND, NONE).map_err(system("bind the namespace directory"))?;
    mount(NONE, parent, NONE, MsFlags::MS_PRIVATE, NONE).map_err(system("make the namespace directory private"))?;
    File::create(holder).map_err(file("create", holder))?;
    let (mut made, mut tell_made) =
        io::pipe().map_err(|source| MachineError::System { action: "open a pipe", source })?;
    let (mut may_end, tell_end) =
        io::pipe().map_err(|source| MachineError::System { action: "open a pipe", source })?;
    // SAFETY: the process has one thread at this point, so the child may use anything.
    match unsafe { fork() }.map_err(system("fork"))? {
        ForkResult::Child => {
            drop(tell_end);
            let answer = match prepare_mounts(own_sys) {
                Ok(()) => "ok".to_owned(),
                Err(error) => with_cause(&error),
            };
            let _ = tell_made.write_all(answer.as_bytes());
            drop(tell_made);
            let _ = may_end.read(&mut [0]);
            std::process::exit(0);
        }
        ForkResult::Parent { child } => {
            drop(tell_made);
            let mut answer = String::new();
            let _ = made.read_to_string(&mut answer);
            let held = if answer == "ok" {
                let namespace = format!("/proc/{child}/ns/mnt");
                mount(Some(namespace.as_str()), holder, NONE, MsFlags::MS_BIND, NONE)
                    .map_err(system("hold the mount namespace"))
            } else {
                Err(MachineError::System { action: "prepare the mount namespace", source: io::Error::other(answer) })
            };
            drop(tell_end);
            let _ = waitpid(child, None);
            held
        }
    }
}

fn with_cause(error: &MachineError) -> String {
    let cause = std::error::Error::source(error).map(|c| format!(": {c}")).unwrap_or_default();
    format!("{error}{cause}")
}

fn prepare_mounts(own_sys: bool) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(system("unshare mounts"))?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).map_err(system("make / private"))?;
    if own_sys {
        replace_sys()?;
    }
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE).map_err(system("make / shared"))
}

/// Mounts the sysfs of this network namespace over `/sys` and keeps the cgroup mounts in it.
fn replace_sys() -> Result<()> {
    let fresh = std::env::temp_dir().join(format!("tug-sys-{}", std::process::id()));
    fs::create_dir_all(&fresh).map_err(file("create", &fresh))?;
    mount(Some("sysfs"), &fresh, Some("sysfs"), MsFlags::empty(), NONE).map_err(system("mount sysfs"))?;
    let cgroup = fresh.join("fs/cgroup");
    mount(Some("/sys/fs/cgroup"), &cgroup, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .map_err(system("bind the cgroup mounts"))?;
    umount2("/sys", MntFlags::MNT_DETACH).map_err(system("unmount /sys"))?;
    mount(Some(&fresh), "/sys", NONE, MsFlags::MS_MOVE, NONE).map_err(system("move sysfs to /sys"))?;
    fs::remove_dir(&fresh).map_err(file("remove", &fresh))
}

//! `subPath` mounts that a container cannot use to leave its volume: the kernel resolves the path beneath the volume's root.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Opens `path` beneath `root` as a location, refusing every step that would leave it.
fn open_beneath(root: &impl AsRawFd, path: &str) -> io::Result<OwnedFd> {
    open_with(root, path, 0)
}

fn open_with(root: &impl AsRawFd, path: &str, flags: libc::c_int) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    // SAFETY: an all-zero open_how is valid, and its fields are set below.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC | flags) as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: all pointers outlive the call and the size is that of the structure passed.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            std::ptr::addr_of!(how),
            std::mem::size_of::<libc::open_how>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel returned this new descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Creates the missing directories of `path` one by one beneath the root.
fn make_beneath(root: &fs::File, path: &str) -> io::Result<()> {
    let mut done = String::from(".");
    for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
        let parent = open_beneath(root, &done)?;
        let name = CString::new(part)?;
        // SAFETY: descriptor and string live through the call.
        if unsafe { libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), 0o755) } != 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
        } else {
            use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
            // A pod that shares the volume may have put a link in its place by now: what is changed is what was opened.
            let made = open_with(&parent, part, libc::O_NOFOLLOW | libc::O_DIRECTORY)?;
            let path = PathBuf::from(format!("/proc/self/fd/{}", made.as_raw_fd()));
            let like = root.metadata()?;
            fs::set_permissions(&path, fs::Permissions::from_mode(like.mode() & 0o7777))?;
            chown(&path, Some(like.uid()), Some(like.gid()))?;
        }
        done = format!("{done}/{part}");
    }
    Ok(())
}

/// Bind-mounts `volume/path` at `target` and returns the target. Idempotent.
///
/// # Errors
/// When the path leads out of the volume or cannot be made or mounted.
pub fn bind_subpath(volume: &Path, path: &str, target: &Path) -> io::Result<()> {
    if path.starts_with('/') || path.split('/').any(|p| p == "..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("subPath {path:?} must stay in the volume")));
    }
    let root = fs::File::open(volume)?;
    let found = match open_beneath(&root, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_beneath(&root, path)?;
            open_beneath(&root, path)?
        }
        other => other?,
    };
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let is_dir = fs::metadata(&source)?.is_dir();
    // the volume may have been replaced since the last container: mount afresh
    let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::UMOUNT_NOFOLLOW);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    match is_dir {
        true => fs::create_dir_all(target)?,
        false => drop(fs::OpenOptions::new().create(true).append(true).open(target)?),
    }
    let none: Option<&str> = None;
    nix::mount::mount(Some(&source), target, none, nix::mount::MsFlags::MS_BIND, none)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_path_leaves_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir_all(volume.join("inside")).unwrap();
        fs::create_dir(dir.path().join("secret")).unwrap();
        symlink("../secret", volume.join("relative")).unwrap();
        symlink("/etc", volume.join("absolute")).unwrap();
        symlink("/proc/self/root", volume.join("magic")).unwrap();
        symlink("inside", volume.join("within")).unwrap();
        let root = fs::File::open(&volume).unwrap();
        for path in ["relative", "relative/x", "absolute", "absolute/passwd", "magic", "magic/etc", "../secret"] {
            assert!(open_beneath(&root, path).is_err(), "{path} leads out");
            assert!(make_beneath(&root, &format!("{path}/new")).is_err(), "{path}/new would be made outside");
        }
        assert!(!dir.path().join("secret/new").exists());
        make_beneath(&root, "within/a/b").unwrap();
        assert!(volume.join("inside/a/b").is_dir());
        assert!(bind_subpath(&volume, "/etc", &dir.path().join("t")).is_err());
        assert!(bind_subpath(&volume, "a/../../x", &dir.path().join("t")).is_err());
    }
}

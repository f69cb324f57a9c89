//! `fsGroup`: gives a volume's files to a group, and everything made in it later too.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// Directories nested deeper are an error, not a stack overflow.
const DEPTH_MAX: usize = 4096;

/// Makes `group` the owner of everything below `root`. With `only_on_mismatch`, a root that is right already is left as
/// it is with all below it.
///
/// # Errors
/// What the file system reports.
pub fn give(root: &Path, group: u32, only_on_mismatch: bool) -> io::Result<()> {
    let meta = fs::symlink_metadata(root)?;
    let wanted = wanted(&meta);
    if only_on_mismatch && meta.gid() == group && meta.mode() & wanted == wanted {
        return Ok(());
    }
    let mut waiting = vec![(root.to_path_buf(), 0)];
    // The root comes last: a pass that was cut short is seen as one.
    while let Some((dir, depth)) = waiting.pop() {
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!("{} is nested too deep", dir.display())));
        }
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            change(&entry.path(), group)?;
            if entry.file_type()?.is_dir() {
                waiting.push((entry.path(), depth + 1));
            }
        }
    }
    change(root, group)
}

fn wanted(meta: &fs::Metadata) -> u32 {
    if meta.is_dir() { 0o2770 } else { 0o660 }
}

fn change(path: &Path, group: u32) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if meta.file_type().is_symlink() {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode((meta.mode() | wanted(&meta)) & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories_get_the_group() {
        let dir = tempfile::tempdir().unwrap();
        let (root, group) = (dir.path(), fs::metadata(dir.path()).unwrap().gid());
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "x").unwrap();
        fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("/nowhere", root.join("link")).unwrap();
        give(root, group, true).unwrap();
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("") & 0o2770, mode("d") & 0o2770, mode("d/f")), (0o2770, 0o2770, 0o660));
        fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        give(root, group, true).unwrap();
        assert_eq!(mode("d/f"), 0o600, "a root that is right is left alone");
        give(root, group, false).unwrap();
        assert_eq!(mode("d/f"), 0o660);
    }
}

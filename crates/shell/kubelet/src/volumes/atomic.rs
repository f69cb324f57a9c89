//! Replaces a volume's files all at once: a new directory is filled, then the `..data` link is renamed over the old one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path};

/// One file of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Content.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner, when it is not root.
    pub owner: Option<u32>,
}

/// Files by relative path.
pub type Payload = BTreeMap<String, File>;

/// Whether a path stays inside the volume and is no name that the writer itself uses.
pub fn valid_path(path: &str) -> bool {
    let path = Path::new(path);
    path.components().all(|c| matches!(c, Component::Normal(_)))
        && path.components().next().is_some()
        && !path.to_string_lossy().starts_with("..")
}

fn same(current: &Path, payload: &Payload, group: Option<u32>) -> bool {
    let mut found = 0;
    for (path, file) in payload {
        let full = current.join(path);
        let Ok(meta) = fs::metadata(&full) else { return false };
        if meta.permissions().mode() & 0o777 != mode_of(file, group)
            || fs::read(&full).ok().as_ref() != Some(&file.data)
        {
            return false;
        }
        found += 1;
    }
    found == count_files(current)
}

fn count_files(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.flatten().map(|e| if e.path().is_dir() { count_files(&e.path()) } else { 1 }).sum()
}

fn mode_of(file: &File, group: Option<u32>) -> u32 {
    // a volume group reads every file, as upstream's ownership pass for read-only volumes gives it
    if group.is_some() { file.mode | 0o440 } else { file.mode }
}

/// Makes `dir` show exactly `payload`. Readers see the old or the new set, never a mixture.
///
/// # Errors
/// What the file system reports.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>, stamp: u128) -> io::Result<bool> {
    fs::create_dir_all(dir)?;
    let link = dir.join("..data");
    let old = fs::read_link(&link).ok();
    if let Some(old) = &old
        && same(&dir.join(old), payload, group)
    {
        return Ok(false);
    }
    let name = format!("..{stamp}");
    let fresh = dir.join(&name);
    fs::create_dir_all(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let full = fresh.join(path);
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&full, &file.data)?;
        chown(&full, file.owner, group)?;
        fs::set_permissions(&full, fs::Permissions::from_mode(mode_of(file, group)))?;
    }
    let temporary = dir.join("..data_tmp");
    let _ = fs::remove_file(&temporary);
    symlink(&name, &temporary)?;
    fs::rename(&temporary, &link)?;

    let wanted: BTreeSet<String> = payload.keys().filter_map(|p| p.split('/').next()).map(str::to_string).collect();
    for first in &wanted {
        let visible = dir.join(first);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new("..data").join(first), &visible)?;
        }
    }
    for entry in fs::read_dir(dir)?.flatten() {
        let entry_name = entry.file_name().to_string_lossy().into_owned();
        if !entry_name.starts_with("..") && !wanted.contains(&entry_name) {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swaps_all_files_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = |text: &str| File { data: text.into(), mode: 0o644, owner: None };
        let one: Payload = [("a".into(), file("1")), ("d/b".into(), file("2"))].into();
        assert!(write(dir.path(), &one, None, 1).unwrap());
        assert!(!write(dir.path(), &one, None, 2).unwrap(), "the same content changes nothing");
        assert_eq!(fs::read_to_string(dir.path().join("d/b")).unwrap(), "2");
        let two: Payload = [("a".into(), file("3"))].into();
        assert!(write(dir.path(), &two, None, 3).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert!(!dir.path().join("d").exists());
        assert!(!valid_path("../x") && !valid_path("/x") && !valid_path("") && valid_path("a/b"));
    }
}

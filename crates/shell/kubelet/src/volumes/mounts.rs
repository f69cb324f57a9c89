//! What is mounted where, as the kernel lists it, and bind mounts of files and directories.

use nix::mount::MsFlags;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One line of the list.
pub struct Mount {
    /// `MAJOR:MINOR` of the file system.
    pub device: String,
    pub at: PathBuf,
}

/// All mounts of this process's namespace.
///
/// # Errors
/// `/proc` cannot be read.
pub fn list() -> io::Result<Vec<Mount>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let parse = |line: &str| {
        let mut words = line.split(' ').skip(2);
        Some(Mount { device: words.next()?.to_owned(), at: unescape(words.nth(1)?) })
    };
    Ok(text.lines().filter_map(parse).collect())
}

/// Spaces and the like are written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

/// Whether something is mounted exactly here.
///
/// # Errors
/// As [`list`].
pub fn is_mounted(path: &Path) -> io::Result<bool> {
    let Ok(path) = fs::canonicalize(path) else { return Ok(false) };
    Ok(list()?.iter().any(|mount| mount.at == path))
}

/// Shows `source` at `target`, which is made if it is missing. Safe to repeat.
///
/// # Errors
/// What the kernel reports.
pub fn bind(source: &Path, target: &Path, read_only: bool) -> io::Result<()> {
    if is_mounted(target)? {
        return Ok(());
    }
    if fs::metadata(source)?.is_dir() {
        fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::OpenOptions::new().create(true).append(true).open(target)?;
    }
    let none: Option<&str> = None;
    nix::mount::mount(Some(source), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    if read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        nix::mount::mount(none, target, none, flags, none)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_escapes_are_read() {
        assert_eq!(unescape(r"/a\040b\134c"), PathBuf::from(r"/a b\c"));
        assert!(is_mounted(Path::new("/proc")).unwrap());
        assert!(!is_mounted(Path::new("/proc/self")).unwrap());
    }
}

//! The data directory: one owner at a time, and a format it declares before anything in it is read.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::contract::{StoreError, StoreResult};

/// Version of what lies in the directory; a change of the record layout raises it.
const FORMAT_VERSION: u32 = 1;
const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";

/// A directory this process owns until the value is dropped.
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes or takes over the directory. Fails with `Unavailable` when it cannot be written or another process has
    /// it, with `Corrupt` when its format is not known.
    pub fn open(path: &Path) -> StoreResult<Self> {
        std::fs::create_dir_all(path).map_err(|e| unavailable("cannot create the data directory", path, &e))?;
        let lock = lock(path)?;
        check_format(path)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where the entries lie.
    pub fn database(&self) -> PathBuf {
        self.path.join("db")
    }
}

fn lock(path: &Path) -> StoreResult<File> {
    let file = path.join(LOCK_FILE);
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file)
        .map_err(|e| unavailable("cannot write to the data directory", path, &e))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let _ = lock.read_to_string(&mut owner);
            let (path, owner) = (path.display(), owner.trim());
            return Err(StoreError::Unavailable(format!(
                "the data directory {path} is in use by process {owner}; stop it or choose another directory"
            )));
        }
        Err(std::fs::TryLockError::Error(e)) => return Err(unavailable("cannot lock the data directory", path, &e)),
    }
    // The process id only helps people; the lock itself is the kernel's and ends with the process.
    let written = lock
        .set_len(0)
        .and_then(|()| lock.seek(SeekFrom::Start(0)))
        .and_then(|_| write!(lock, "{}", std::process::id()));
    written.map_err(|e| unavailable("cannot write to the data directory", path, &e))?;
    Ok(lock)
}

fn check_format(path: &Path) -> StoreResult<()> {
    let file = path.join(FORMAT_FILE);
    match std::fs::read_to_string(&file) {
        Ok(text) => parse_format(&text).map_err(|why| StoreError::Corrupt(format!("{}: {why}", file.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if path.join("db").exists() {
                return Err(StoreError::Corrupt(format!("{} is missing beside existing data", file.display())));
            }
            write_format(path).map_err(|e| unavailable("cannot write to the data directory", path, &e))
        }
        Err(e) => Err(unavailable("cannot read the data directory", path, &e)),
    }
}

fn format_line(version: u32) -> String {
    let body = format!("tug-store {version}");
    format!("{body} {:08x}\n", crc32fast::hash(body.as_bytes()))
}

fn parse_format(text: &str) -> Result<(), String> {
    let version = text.split(' ').nth(1).and_then(|v| v.parse().ok()).ok_or("not a format declaration")?;
    if text != format_line(version) {
        return Err("its checksum does not match".to_owned());
    }
    if version != FORMAT_VERSION {
        return Err(format!("format version {version} is not known to this program, which writes {FORMAT_VERSION}"));
    }
    Ok(())
}

/// The file appears whole or not at all.
fn write_format(path: &Path) -> std::io::Result<()> {
    let new = path.join("FORMAT.new");
    let mut file = File::create(&new)?;
    file.write_all(format_line(FORMAT_VERSION).as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path.join(FORMAT_FILE))?;
    File::open(path)?.sync_all()
}

fn unavailable(what: &str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_declares_itself() {
        assert_eq!(parse_format(&format_line(FORMAT_VERSION)), Ok(()));
        assert!(parse_format("").unwrap_err().contains("not a format"));
        assert!(parse_format("tug-store 1 00000000\n").unwrap_err().contains("checksum"));
        assert!(parse_format(&format_line(99)).unwrap_err().contains("version 99"));
    }

    #[test]
    fn second_owner_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::open(dir.path()).unwrap();
        let message = Directory::open(dir.path()).err().unwrap().to_string();
        assert!(message.contains(&format!("in use by process {}", std::process::id())), "{message}");
        drop(first);
        Directory::open(dir.path()).unwrap();
    }

    #[test]
    fn data_without_a_format_is_not_guessed_at() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("db")).unwrap();
        assert!(matches!(Directory::open(dir.path()), Err(StoreError::Corrupt(_))));
    }
}

//! Disks of this node: a volume is a file with a file system of its own, so its size is a wall and not a wish.
//!
//! Rejected: project quotas, which need kernel support and a mount option of the machine's own file system, and show
//! pods a disk of the wrong size. A file system grows while it is mounted where the process has `CAP_SYS_RESOURCE`; where
//! it has not (many containers and hardened services), the file system is made larger than asked for and what nobody
//! asked for is held by a hidden file, which is cut shorter when the volume grows. Beyond that, and in any case while it
//! is not mounted, it is resized offline.
//!
//! Files are sparse; the room that disks may still need is set against what the machine has left, so it cannot be
//! promised twice.

use super::loops::{self, Loop};
use super::mounts;
use anyhow::Context;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MntFlags, MsFlags};
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where a file system cannot grow online, it is made this many times as large, and at least this much larger.
const CEILING_FACTOR: u64 = 4;
const CEILING_EXTRA_BYTES: u64 = 4 << 30;
/// Blocks that bookkeeping of the hidden file may take.
const SLACK_BYTES: u64 = 64 << 10;
/// ext4 keeps this share of its blocks, but no more than that many, for its own needs.
const KEPT_SHARE: u64 = 50;
const KEPT_BLOCKS_MAX: u64 = 4096;
/// How long the device of a disk that has to grow is waited for.
const FREE_LOOKS_MAX: u32 = 20;
const FREE_LOOK_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
const NAME_CHARS_MAX: usize = 253;
const CAP_SYS_RESOURCE: u32 = 24;
/// The part of a file system that pods see.
const DATA: &str = "data";
const RESERVE: &str = "reserve";

/// Why a disk is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// This node cannot, and trying again does not help.
    #[error("{0}")]
    Refused(String),
    /// It did not work this time.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl From<io::Error> for DiskError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// What is written beside an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    bytes: u64,
    block: bool,
    /// The file system is as large as the disk, and nothing of it is held back.
    exact: bool,
}

/// How far a disk has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grown {
    Done,
    /// When it is mounted next.
    Pending,
}

/// The disks of one node. Their operations are short and one at a time.
#[derive(Debug)]
pub struct Disks {
    dir: PathBuf,
    /// Whether file systems can be resized while they are mounted.
    online: bool,
    lock: Mutex<()>,
}

impl Disks {
    /// Disks below `dir`; `online`: mounted file systems can be resized.
    pub fn new(dir: PathBuf, online: bool) -> Disks {
        Disks { dir, online, lock: Mutex::default() }
    }

    fn locked(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn home(&self, name: &str) -> Result<PathBuf, DiskError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        if name.is_empty() || name.len() > NAME_CHARS_MAX || name.starts_with('.') || !name.chars().all(fits) {
            return Err(DiskError::Refused(format!("{name:?} is no name of a disk")));
        }
        Ok(self.dir.join(name))
    }

    /// Where a disk is mounted, or its image when it is a block device: the path of its volume.
    pub fn path(&self, name: &str, block: bool) -> Result<PathBuf, DiskError> {
        let home = self.home(name)?;
        Ok(if block { home.join("image") } else { home.join("mount").join(DATA) })
    }

    /// Makes a disk. One that exists stays as it is.
    ///
    /// # Errors
    /// Refused when the machine has not that much room left.
    pub fn create(&self, name: &str, bytes: u64, block: bool) -> Result<PathBuf, DiskError> {
        let _one_at_a_time = self.locked();
        let home = self.home(name)?;
        if read_record(&home).is_ok() {
            return self.path(name, block);
        }
        fs::create_dir_all(&self.dir)?;
        self.check_room(bytes)?;
        let fresh = self.dir.join(format!(".{name}.new"));
        match fs::remove_dir_all(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir(&fresh)?,
        }
        let record = Record { bytes, block, exact: self.online || block };
        let image = File::create(fresh.join("image"))?;
        image.set_len(image_bytes(&record))?;
        if !block {
            let path = fresh.join("image");
            let options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0";
            run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", options], &path)?;
        }
        write_record(&fresh, &record)?;
        image.sync_all()?;
        fs::rename(&fresh, &home).with_context(|| format!("cannot make {}", home.display()))?;
        File::open(&self.dir)?.sync_all()?;
        self.path(name, block)
    }

    /// Mounts a disk's file system and answers the directory for pods; finishes what growth is due.
    ///
    /// # Errors
    /// The disk is not on this node, or damaged.
    pub fn mount(&self, name: &str) -> Result<PathBuf, DiskError> {
        let _one_at_a_time = self.locked();
        let home = self.home(name)?;
        let record = read_record(&home).map_err(|error| missing(name, &error))?;
        let (image, at) = (home.join("image"), home.join("mount"));
        if !mounts::is_mounted(&at)? {
            fs::create_dir_all(&at)?;
            if is_too_small(&image, &record)? {
                wait_until_free(&image)?;
                grow_offline(&image, &record)?;
            }
            let device = loops::attach(&image, true).with_context(|| format!("cannot attach {}", image.display()))?;
            let mounted = nix::mount::mount(Some(&device.path), &at, Some("ext4"), MsFlags::empty(), Some("discard"));
            mounted.with_context(|| format!("cannot mount {} at {}", device.path.display(), at.display()))?;
        }
        let data = at.join(DATA);
        if !data.exists() {
            fs::create_dir(&data)?;
            fs::set_permissions(&data, fs::Permissions::from_mode(0o777))?;
        }
        if !record.exact {
            hold_back(&at, record.bytes)?;
        }
        Ok(data)
    }

    /// Attaches a disk without a file system and answers its device.
    ///
    /// # Errors
    /// The disk is not on this node.
    pub fn attach(&self, name: &str) -> Result<PathBuf, DiskError> {
        let _one_at_a_time = self.locked();
        let home = self.home(name)?;
        read_record(&home).map_err(|error| missing(name, &error))?;
        Ok(loops::attach(&home.join("image"), false)?.path)
    }

    /// Makes a disk larger, at once where that is possible.
    ///
    /// # Errors
    /// Refused when the machine has not that much room left.
    pub fn grow(&self, name: &str, bytes: u64) -> Result<Grown, DiskError> {
        let _one_at_a_time = self.locked();
        let home = self.home(name)?;
        let mut record = read_record(&home).map_err(|error| missing(name, &error))?;
        if bytes > record.bytes {
            self.check_room(bytes - record.bytes)?;
            record.bytes = bytes;
            write_record(&home, &record)?;
        }
        let (image, at) = (home.join("image"), home.join("mount"));
        let device = loops::find(&image);
        if record.block {
            set_len(&image, record.bytes)?;
            if device.is_some() {
                loops::attach(&image, false)?.refresh()?;
            }
            return Ok(Grown::Done);
        }
        if device.is_none() {
            grow_offline(&image, &record)?;
            return Ok(Grown::Done);
        }
        if !record.exact {
            return Ok(if hold_back(&at, record.bytes)? { Grown::Done } else { Grown::Pending });
        }
        set_len(&image, record.bytes)?;
        let device = loops::attach(&image, true)?;
        device.refresh()?;
        Ok(run("resize2fs", &[], &device.path).map_or(Grown::Pending, |()| Grown::Done))
    }

    /// Removes a disk with everything on it.
    ///
    /// # Errors
    /// Something still uses it.
    pub fn remove(&self, name: &str) -> Result<(), DiskError> {
        let _one_at_a_time = self.locked();
        let home = self.home(name)?;
        release(&home)?;
        if home.exists() {
            // Whoever still holds the image (another mount namespace) must not hold its room.
            set_len_exact(&home.join("image"), 0)?;
            fs::remove_dir_all(&home)?;
        }
        Ok(())
    }

    /// Unmounts the disks that no pod below `pods` uses any more.
    ///
    /// # Errors
    /// What the kernel reports about the first that stays.
    pub fn release_unused(&self, pods: &Path) -> io::Result<()> {
        let _one_at_a_time = self.locked();
        let all = mounts::list()?;
        let linked = linked_devices(pods);
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let home = entry.path();
            let Some(device) = loops::find(&home.join("image")) else { continue };
            let number = fs::metadata(&device).map(|meta| meta.rdev()).unwrap_or(0);
            let number = format!("{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number));
            let used = all.iter().any(|mount| mount.device == number && mount.at.starts_with(pods));
            if !used && !linked.contains(&device) {
                release(&home)?;
            }
        }
        Ok(())
    }

    /// Bytes of the file system at `path` that are there and not meant for pods.
    pub fn held_back(&self, path: &Path) -> u64 {
        let Ok(device) = fs::metadata(path).map(|meta| meta.dev()) else { return 0 };
        let all = fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path().join("mount"));
        let mut same = all.filter(|at| fs::metadata(at).is_ok_and(|meta| meta.dev() == device));
        let reserve = same.find_map(|at| fs::metadata(at.join(RESERVE)).ok());
        reserve.map_or(0, |meta| meta.blocks() * 512)
    }

    /// Refuses what would not fit beside everything that is promised already.
    fn check_room(&self, bytes: u64) -> Result<(), DiskError> {
        let stat = statvfs(&self.dir).map_err(io::Error::from)?;
        let free = stat.blocks_available() * stat.fragment_size();
        let promised: u64 = fs::read_dir(&self.dir)?
            .flatten()
            .filter_map(|entry| {
                let record = read_record(&entry.path()).ok()?;
                let taken = fs::metadata(entry.path().join("image")).ok()?.blocks() * 512;
                Some(record.bytes.saturating_sub(taken))
            })
            .sum();
        let left = free.saturating_sub(promised);
        if bytes <= left {
            return Ok(());
        }
        let mib = |bytes: u64| format!("{}Mi", bytes >> 20);
        Err(DiskError::Refused(format!(
            "not enough free storage: {} are asked for, {} are left ({} free, {} promised to other volumes)",
            mib(bytes),
            mib(left),
            mib(free),
            mib(promised)
        )))
    }
}

fn missing(name: &str, error: &io::Error) -> DiskError {
    DiskError::Refused(format!("the data of volume {name:?} is not on this node: {error}"))
}

fn read_record(home: &Path) -> io::Result<Record> {
    serde_json::from_slice(&fs::read(home.join("disk.json"))?).map_err(io::Error::from)
}

fn write_record(home: &Path, record: &Record) -> io::Result<()> {
    let (path, fresh) = (home.join("disk.json"), home.join("disk.json.new"));
    fs::write(&fresh, serde_json::to_vec(record)?)?;
    File::open(&fresh)?.sync_all()?;
    fs::rename(fresh, path)
}

/// How long the file has to be.
fn image_bytes(record: &Record) -> u64 {
    if record.exact {
        return record.bytes;
    }
    (record.bytes * CEILING_FACTOR).max(record.bytes + CEILING_EXTRA_BYTES)
}

fn set_len(image: &Path, bytes: u64) -> io::Result<()> {
    if fs::metadata(image)?.len() < bytes { set_len_exact(image, bytes) } else { Ok(()) }
}

fn set_len_exact(image: &Path, bytes: u64) -> io::Result<()> {
    OpenOptions::new().write(true).open(image)?.set_len(bytes)
}

/// Whether an image has to grow before its file system can be as large as asked for.
fn is_too_small(image: &Path, record: &Record) -> io::Result<bool> {
    let has = fs::metadata(image)?.len();
    // A larger one than its ceiling asks for stays: the hidden file is made up for it.
    let fits = if record.exact { record.bytes } else { record.bytes + record.bytes / KEPT_SHARE + (256 << 20) };
    Ok(!record.block && has < fits)
}

/// A process that starts in a mount namespace of its own may hold a copy of a mount for a moment longer.
fn wait_until_free(image: &Path) -> Result<(), DiskError> {
    for _ in 0..FREE_LOOKS_MAX {
        if loops::find(image).is_none() {
            return Ok(());
        }
        std::thread::sleep(FREE_LOOK_PAUSE);
    }
    let why = format!("{} has to grow and is still held by another mount namespace", image.display());
    Err(DiskError::Failed(anyhow::anyhow!(why)))
}

/// Brings the file system of an image that nobody uses to its size.
fn grow_offline(image: &Path, record: &Record) -> Result<(), DiskError> {
    if !is_too_small(image, record)? {
        return Ok(());
    }
    set_len(image, image_bytes(record))?;
    run("e2fsck", &["-f", "-p"], image)?;
    run("resize2fs", &[], image)
}

/// Makes the hidden file as large as what the pods shall not have. False: the file system is too small for `bytes`.
fn hold_back(at: &Path, bytes: u64) -> io::Result<bool> {
    let stat = statvfs(at)?;
    let block = stat.fragment_size();
    let blocks = stat.blocks();
    let usable = (blocks - (blocks / KEPT_SHARE).min(KEPT_BLOCKS_MAX)) * block;
    let wanted = usable.saturating_sub(bytes + SLACK_BYTES) / block * block;
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(at.join(RESERVE))?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    if file.metadata()?.len() > wanted {
        file.set_len(wanted)?;
    }
    if file.metadata()?.blocks() * 512 < wanted && wanted > 0 {
        let length = i64::try_from(wanted).map_err(io::Error::other)?;
        fallocate(&file, FallocateFlags::empty(), 0, length)?;
    }
    Ok(usable >= bytes)
}

/// Unmounts a disk and gives its device back.
fn release(home: &Path) -> io::Result<()> {
    let at = home.join("mount");
    if at.exists() && mounts::is_mounted(&at)? {
        nix::mount::umount2(&at, MntFlags::UMOUNT_NOFOLLOW)?;
    }
    let image = home.join("image");
    if loops::find(&image).is_some() {
        let device: Loop = loops::attach(&image, true)?;
        // An automatic one is gone by now, or goes when it is closed.
        let _ = device.detach();
    }
    Ok(())
}

/// Devices that pods have links to.
fn linked_devices(pods: &Path) -> Vec<PathBuf> {
    let below = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let plugins = below(pods.to_path_buf()).flat_map(|pod| below(pod.join("volumeDevices")).collect::<Vec<_>>());
    plugins.flat_map(|plugin| below(plugin).collect::<Vec<_>>()).filter_map(|link| fs::read_link(link).ok()).collect()
}

/// Whether this process may resize file systems that are mounted.
pub fn can_resize_online() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    bits & (1 << CAP_SYS_RESOURCE) != 0
}

fn run(program: &str, arguments: &[&str], path: &Path) -> Result<(), DiskError> {
    let output = Command::new(program).args(arguments).arg(path).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DiskError::Refused(format!("{program} is not installed: install e2fsprogs")),
        _ => DiskError::Failed(anyhow::Error::new(error).context(format!("cannot run {program}"))),
    })?;
    // e2fsck answers 1 when it has mended something.
    if output.status.success() || (program == "e2fsck" && output.status.code() == Some(1)) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(DiskError::Failed(anyhow::anyhow!("{program} {}: {said}", path.display())))
}

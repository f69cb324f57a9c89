//! Loop devices: a file as a block device, found again after a restart by what the kernel says about it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_SET_CAPACITY: libc::Ioctl = 0x4C07;
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LOOP_MAJOR: u64 = 7;
/// Another process may take the device that was free a moment ago.
const ATTEMPTS_MAX: u32 = 16;

#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// A device with its open file: an automatic one lives as long as it is open or mounted.
pub struct Loop {
    /// For example `/dev/loop3`.
    pub path: PathBuf,
    file: File,
}

/// The device that this file is attached to already.
pub fn find(image: &Path) -> Option<PathBuf> {
    let wanted = fs::canonicalize(image).ok()?;
    for entry in fs::read_dir("/sys/block").ok()?.flatten() {
        let name = entry.file_name();
        let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if Path::new(backing.trim_end_matches('\n')) == wanted {
            return Some(Path::new("/dev").join(name));
        }
    }
    None
}

/// Attaches the file, or opens the device that it is attached to: two devices over one file would corrupt it.
///
/// # Errors
/// No loop device is to be had, or the kernel refuses the file.
pub fn attach(image: &Path, automatic: bool) -> io::Result<Loop> {
    if let Some(path) = find(image) {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        return Ok(Loop { path, file });
    }
    let backing = OpenOptions::new().read(true).write(true).open(image)?;
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    // SAFETY: an all-zero structure is valid, and its fields are set below.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
    config.info.flags = if automatic { LO_FLAGS_AUTOCLEAR } else { 0 };
    let mut last = io::Error::other("no free loop device");
    for _ in 0..ATTEMPTS_MAX {
        // SAFETY: the request takes no argument and answers a number.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        make_node(&path, number.unsigned_abs().into())?;
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        // SAFETY: the structure is the one that the request reads, and it outlives the call.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), LOOP_CONFIGURE, std::ptr::addr_of!(config)) };
        if done == 0 {
            return Ok(Loop { path, file });
        }
        last = io::Error::last_os_error();
        if last.raw_os_error() != Some(libc::EBUSY) {
            break;
        }
    }
    Err(last)
}

/// Where `/dev` is no devtmpfs, nobody makes the node of a new device.
fn make_node(path: &Path, minor: u64) -> io::Result<()> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    if path.exists() {
        return Ok(());
    }
    match mknod(path, SFlag::S_IFBLK, Mode::from_bits_truncate(0o660), makedev(LOOP_MAJOR, minor)) {
        Err(nix::errno::Errno::EEXIST) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Loop {
    /// Takes notice that the file has grown.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn refresh(&self) -> io::Result<()> {
        self.call(LOOP_SET_CAPACITY)
    }

    /// Gives the device back, now or when its last user is gone.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn detach(&self) -> io::Result<()> {
        self.call(LOOP_CLR_FD)
    }

    fn call(&self, request: libc::Ioctl) -> io::Result<()> {
        // SAFETY: both requests take an ignored integer.
        match unsafe { libc::ioctl(self.file.as_raw_fd(), request, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

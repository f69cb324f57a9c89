//! Disks on this machine's loop devices: the size is a wall, growth, restarts and the end. Needs root, as a node does.

use super::disk::{DiskError, Disks, Grown};
use super::mounts;
use std::fs;
use std::io::Write;
use std::path::Path;

const MIB: u64 = 1 << 20;

/// Without root and loop devices there is nothing to be tested.
fn possible() -> bool {
    let root = nix::unistd::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    if !root {
        println!("skipped: disks need root and loop devices");
    }
    root
}

/// Bytes that can be written before the volume is full; nothing is left behind.
fn room(data: &Path) -> u64 {
    let path = data.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    let chunk = vec![7u8; MIB as usize / 4];
    let mut written = 0;
    while file.write_all(&chunk).and_then(|()| file.sync_data()).is_ok() {
        written += chunk.len() as u64;
    }
    fs::remove_file(path).unwrap();
    written
}

/// Nearly all of it, and no more.
fn assert_room(data: &Path, bytes: u64) {
    let found = room(data);
    assert!(found <= bytes && found + bytes / 8 + MIB >= bytes, "{found} of {bytes}");
}

#[test]
fn the_size_is_a_wall_that_can_be_moved() {
    if !possible() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disks = Disks::new(dir.path().join("disks"), false);
    disks.create("d", 16 * MIB, false).unwrap();
    disks.create("d", 16 * MIB, false).unwrap();
    let data = disks.mount("d").unwrap();
    assert_eq!(data, disks.path("d", false).unwrap());
    assert_room(&data, 16 * MIB);
    fs::write(data.join("kept"), "data").unwrap();

    assert_eq!(disks.grow("d", 64 * MIB).unwrap(), Grown::Done);
    assert_room(&data, 64 * MIB);
    let restarted = Disks::new(dir.path().join("disks"), false);
    assert_eq!(restarted.mount("d").unwrap(), data);

    // Beyond the ceiling growth waits until nobody uses the disk.
    assert_eq!(disks.grow("d", 5000 * MIB).unwrap(), Grown::Pending);
    disks.release_unused(&dir.path().join("pods")).unwrap();
    assert!(!mounts::is_mounted(data.parent().unwrap()).unwrap());
    disks.mount("d").unwrap();
    assert_eq!(fs::read_to_string(data.join("kept")).unwrap(), "data");
    let free = nix::sys::statvfs::statvfs(&data).unwrap();
    let free = free.blocks_available() * free.fragment_size();
    assert!(free > 4900 * MIB && free < 5001 * MIB, "{free}");
    disks.remove("d").unwrap();
    disks.remove("d").unwrap();
    assert!(matches!(disks.mount("d"), Err(DiskError::Refused(_))));
}

#[test]
fn a_file_system_of_its_exact_size_grows_offline_too() {
    if !possible() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disks = Disks::new(dir.path().join("disks"), true);
    disks.create("d", 32 * MIB, false).unwrap();
    let data = disks.mount("d").unwrap();
    assert!(room(&data) < 32 * MIB);
    disks.release_unused(&dir.path().join("pods")).unwrap();
    assert_eq!(disks.grow("d", 96 * MIB).unwrap(), Grown::Done);
    let found = room(&disks.mount("d").unwrap());
    assert!(found > 64 * MIB && found < 96 * MIB, "{found}");
    disks.remove("d").unwrap();
}

#[test]
fn a_block_device_grows_and_goes() {
    if !possible() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disks = Disks::new(dir.path().join("disks"), false);
    disks.create("b", 8 * MIB, true).unwrap();
    let device = disks.attach("b").unwrap();
    assert_eq!(disks.attach("b").unwrap(), device);
    let sectors = || {
        let name = device.file_name().unwrap().to_string_lossy().into_owned();
        fs::read_to_string(format!("/sys/block/{name}/size")).unwrap().trim().parse::<u64>().unwrap()
    };
    assert_eq!(sectors(), 8 * MIB / 512);
    assert_eq!(disks.grow("b", 24 * MIB).unwrap(), Grown::Done);
    assert_eq!(sectors(), 24 * MIB / 512);
    disks.remove("b").unwrap();
}

#[test]
fn room_is_not_promised_twice() {
    if !possible() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disks = Disks::new(dir.path().join("disks"), false);
    let stat = nix::sys::statvfs::statvfs(dir.path()).unwrap();
    let free = stat.blocks_available() * stat.fragment_size();
    disks.create("half", free / 3 * 2, true).unwrap();
    let Err(DiskError::Refused(why)) = disks.create("more", free / 3 * 2, true) else { panic!("promised twice") };
    assert!(why.starts_with("not enough free storage"), "{why}");
    for name in ["../x", "", ".hidden", "a/b"] {
        assert!(matches!(disks.create(name, MIB, true), Err(DiskError::Refused(_))), "{name:?}");
    }
    disks.remove("half").unwrap();
}

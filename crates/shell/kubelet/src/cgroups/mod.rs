//! Control groups of pods under the node's own parent: made with the pod's limits, removed after it. Version 1 and 2.

mod tree;
mod usage;

use podsync::{CgroupLimits, QosClass};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use tree::{Tree, keep};
pub use usage::{Usage, first_process, usage};

const ROOT: &str = "/sys/fs/cgroup";

/// Whether this machine has the unified hierarchy only.
fn unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// What containers below a pod's group get beside their limits, by file. Version 1 has no such files and gets nothing.
pub fn extras(group: &str) -> HashMap<String, String> {
    if unified() { extras_in(&Path::new(ROOT).join(group.trim_start_matches('/'))) } else { HashMap::new() }
}

fn extras_in(group: &Path) -> HashMap<String, String> {
    let wanted = [
        // a container that has lost one of its processes is rarely of use: it ends as a whole and is started again
        ("memory.oom.group", "1"),
        // Kubernetes' default: no swap, so that a limit of memory is one
        ("memory.swap.max", "0"),
    ];
    let known = wanted.into_iter().filter(|(file, _)| group.join(file).exists());
    known.map(|(file, value)| (file.to_string(), value.to_string())).collect()
}

/// The pod's control group path below each hierarchy's root.
pub fn pod_path(parent: &str, class: QosClass, uid: &str) -> String {
    let parent = parent.trim_end_matches('/');
    match class {
        QosClass::Guaranteed => format!("{parent}/pod{uid}"),
        QosClass::Burstable => format!("{parent}/burstable/pod{uid}"),
        QosClass::BestEffort => format!("{parent}/besteffort/pod{uid}"),
    }
}

/// All hierarchies' directories for one path.
fn directories(path: &str) -> Vec<PathBuf> {
    let relative = path.trim_start_matches('/');
    if unified() {
        return vec![Path::new(ROOT).join(relative)];
    }
    let Ok(entries) = fs::read_dir(ROOT) else { return Vec::new() };
    let mut seen = std::collections::HashSet::new();
    let real = entries.flatten().filter_map(|e| fs::canonicalize(e.path()).ok());
    real.filter(|p| p.is_dir() && seen.insert(p.clone())).map(|p| p.join(relative)).collect()
}

fn write(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::write(dir.join(file), value)
}

/// Weight of version 2 for a weight of version 1.
pub fn weight(shares: i64) -> i64 {
    1 + ((shares.clamp(2, 262_144) - 2) * 9999) / 262_142
}

/// A new v1 cpuset group is empty and takes no process until it names processors and memory nodes.
fn fill_cpuset(dir: &Path, root: &Path) -> io::Result<()> {
    let mut at = root.to_path_buf();
    let parts: Vec<_> = dir.strip_prefix(root).map(|p| p.components().collect()).unwrap_or_default();
    for part in parts {
        let parent = at.clone();
        at.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if fs::read_to_string(at.join(file))?.trim().is_empty() {
                write(&at, file, fs::read_to_string(parent.join(file))?.trim())?;
            }
        }
    }
    Ok(())
}

/// Makes a control group and sets its limits.
///
/// # Errors
/// What the kernel reports.
pub fn ensure(path: &str, limits: &CgroupLimits) -> io::Result<()> {
    for dir in directories(path) {
        // a hierarchy that is mounted read-only or has no controllers of ours is no hindrance
        if fs::create_dir_all(&dir).is_err() {
            continue;
        }
        if unified() {
            enable_controllers(&dir)?;
            write(&dir, "cpu.weight", &weight(limits.cpu_shares).to_string())?;
            let quota = limits.cpu_quota_us.map_or("max".to_string(), |q| q.to_string());
            write(&dir, "cpu.max", &format!("{quota} 100000"))?;
            write(&dir, "memory.max", &limits.memory_bytes.map_or("max".to_string(), |m| m.to_string()))?;
            continue;
        }
        if dir.join("cpu.shares").exists() {
            write(&dir, "cpu.shares", &limits.cpu_shares.to_string())?;
            write(&dir, "cpu.cfs_quota_us", &limits.cpu_quota_us.unwrap_or(-1).to_string())?;
        }
        if dir.join("memory.limit_in_bytes").exists() {
            write(&dir, "memory.limit_in_bytes", &limits.memory_bytes.unwrap_or(-1).to_string())?;
        }
        if dir.join("cpuset.cpus").exists() {
            fill_cpuset(&dir, &fs::canonicalize(Path::new(ROOT).join("cpuset"))?)?;
        }
    }
    Ok(())
}

/// In version 2 each ancestor has to hand controllers down.
fn enable_controllers(dir: &Path) -> io::Result<()> {
    let mut at = PathBuf::from(ROOT);
    let parts: Vec<_> = dir.strip_prefix(ROOT).map(|p| p.components().collect()).unwrap_or_default();
    for part in parts {
        for controller in ["+cpu", "+memory", "+pids", "+cpuset", "+io"] {
            let _ = write(&at, "cgroup.subtree_control", controller);
        }
        at.push(part);
    }
    Ok(())
}

/// Removes a control group and what is below it. Groups that still hold processes stay.
pub fn remove(path: &str) {
    fn below(dir: &Path) {
        if let Ok(entries) = fs::read_dir(dir) {
            entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).for_each(|p| below(&p));
        }
        let _ = fs::remove_dir(dir);
    }
    directories(path).iter().for_each(|dir| below(dir));
}

/// Pod groups below the parent, by pod uid.
pub fn pods(parent: &str) -> Vec<(String, String)> {
    let mut found = std::collections::BTreeMap::new();
    for tier in ["", "/burstable", "/besteffort"] {
        let path = format!("{}{tier}", parent.trim_end_matches('/'));
        for dir in directories(&path) {
            let Ok(entries) = fs::read_dir(dir) else { continue };
            for name in entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()) {
                if let Some(uid) = name.strip_prefix("pod") {
                    found.insert(uid.to_string(), format!("{path}/{name}"));
                }
            }
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_version_2_end_as_a_whole_and_do_not_swap() {
        let group = tempfile::tempdir().unwrap();
        assert!(extras_in(group.path()).is_empty(), "a kernel that cannot");
        fs::write(group.path().join("memory.oom.group"), "0\n").unwrap();
        assert_eq!(extras_in(group.path()), HashMap::from([("memory.oom.group".into(), "1".into())]));
        fs::write(group.path().join("memory.swap.max"), "max\n").unwrap();
        assert_eq!(extras_in(group.path()).get("memory.swap.max").map(String::as_str), Some("0"));
    }

    #[test]
    fn weights_span_the_range_of_version_2() {
        assert_eq!([2, 102, 204, 1024, 2048, 262_144].map(weight), [1, 4, 8, 39, 79, 10_000]);
    }
}

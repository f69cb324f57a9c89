//! What the processes of a control group use, read from the kernel's files. Version 1 and 2.

use super::{ROOT, unified};
use std::fs;
use std::path::{Path, PathBuf};

/// What the processes of a control group use. Counters run since the group was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time.
    pub cpu_nanoseconds: u64,
    /// CPU time in user mode.
    pub cpu_user_nanoseconds: u64,
    /// CPU time in the kernel.
    pub cpu_system_nanoseconds: u64,
    /// Periods in which the group had a CPU quota and wanted to run.
    pub cfs_periods: u64,
    /// Periods in which the quota was used up.
    pub cfs_throttled_periods: u64,
    /// Time spent waiting for the next period.
    pub cfs_throttled_nanoseconds: u64,
    /// Memory with page cache.
    pub memory_bytes: u64,
    /// Memory that cannot be given back at once.
    pub working_set_bytes: u64,
    /// Anonymous memory.
    pub rss_bytes: u64,
    /// Page cache.
    pub cache_bytes: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that read from disk.
    pub major_page_faults: u64,
    /// Memory limit, where one is set.
    pub memory_limit_bytes: Option<u64>,
    /// Swapped-out memory.
    pub swap_bytes: u64,
    /// Processes and threads, where the kernel counts them.
    pub processes: Option<u64>,
}

/// Version 1 says "no limit" with a number near the top of its range.
const UNLIMITED_FROM: u64 = 1 << 60;

fn number(file: PathBuf) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// A file of `name value` lines.
struct Table(String);

impl Table {
    fn read(file: PathBuf) -> Table {
        Table(fs::read_to_string(file).unwrap_or_default())
    }

    fn get(&self, name: &str) -> Option<u64> {
        let line = self.0.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix([' ', ':']));
        line?.split_whitespace().next()?.parse().ok()
    }

    fn or_zero(&self, name: &str) -> u64 {
        self.get(name).unwrap_or(0)
    }
}

/// Reads a group's usage, the machine's own for the empty path; `None` if the group does not exist.
pub fn usage(path: &str) -> Option<Usage> {
    let relative = path.trim_matches('/');
    if unified() { version_2(&Path::new(ROOT).join(relative)) } else { version_1(relative) }
}

fn version_2(dir: &Path) -> Option<Usage> {
    let cpu = Table::read(dir.join("cpu.stat"));
    let mut usage = Usage {
        cpu_nanoseconds: cpu.get("usage_usec")? * 1000,
        cpu_user_nanoseconds: cpu.or_zero("user_usec") * 1000,
        cpu_system_nanoseconds: cpu.or_zero("system_usec") * 1000,
        cfs_periods: cpu.or_zero("nr_periods"),
        cfs_throttled_periods: cpu.or_zero("nr_throttled"),
        cfs_throttled_nanoseconds: cpu.or_zero("throttled_usec") * 1000,
        processes: number(dir.join("pids.current")),
        ..Usage::default()
    };
    let memory = Table::read(dir.join("memory.stat"));
    usage.memory_bytes = match number(dir.join("memory.current")) {
        Some(bytes) => bytes,
        // the root group has no such file: as in version 1, what processes and the page cache hold
        None => memory.get("anon")? + memory.get("file")?,
    };
    usage.working_set_bytes = usage.memory_bytes.saturating_sub(memory.or_zero("inactive_file"));
    usage.rss_bytes = memory.or_zero("anon");
    usage.cache_bytes = memory.or_zero("file");
    usage.page_faults = memory.or_zero("pgfault");
    usage.major_page_faults = memory.or_zero("pgmajfault");
    usage.memory_limit_bytes = number(dir.join("memory.max"));
    usage.swap_bytes = number(dir.join("memory.swap.current")).unwrap_or(0);
    Some(usage)
}

fn version_1(relative: &str) -> Option<Usage> {
    let at = |hierarchy: &str, file: &str| Path::new(ROOT).join(hierarchy).join(relative).join(file);
    let memory_bytes = number(at("memory", "memory.usage_in_bytes"))?;
    let memory = Table::read(at("memory", "memory.stat"));
    let cpu = Table::read(at("cpu", "cpu.stat"));
    Some(Usage {
        cpu_nanoseconds: number(at("cpuacct", "cpuacct.usage"))?,
        cpu_user_nanoseconds: number(at("cpuacct", "cpuacct.usage_user")).unwrap_or(0),
        cpu_system_nanoseconds: number(at("cpuacct", "cpuacct.usage_sys")).unwrap_or(0),
        cfs_periods: cpu.or_zero("nr_periods"),
        cfs_throttled_periods: cpu.or_zero("nr_throttled"),
        cfs_throttled_nanoseconds: cpu.or_zero("throttled_time"),
        memory_bytes,
        working_set_bytes: memory_bytes.saturating_sub(memory.or_zero("total_inactive_file")),
        rss_bytes: memory.or_zero("total_rss"),
        cache_bytes: memory.or_zero("total_cache"),
        page_faults: memory.or_zero("total_pgfault"),
        major_page_faults: memory.or_zero("total_pgmajfault"),
        memory_limit_bytes: number(at("memory", "memory.limit_in_bytes")).filter(|bytes| *bytes < UNLIMITED_FROM),
        swap_bytes: memory.or_zero("total_swap"),
        processes: number(at("pids", "pids.current")),
    })
}

/// A process of the group, if it has one.
pub fn first_process(path: &str) -> Option<u32> {
    let relative = path.trim_matches('/');
    let root = Path::new(ROOT);
    let dir = if unified() { root.join(relative) } else { root.join("memory").join(relative) };
    fs::read_to_string(dir.join("cgroup.procs")).ok()?.lines().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_version_2_is_read_from_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        assert_eq!(version_2(dir.path()), None, "a group that is not there");
        write("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 4\nnr_throttled 2\n");
        write("memory.current", "1000\n");
        write("memory.stat", "anon 600\nfile 400\ninactive_file 300\npgfault 7\npgmajfault 1\n");
        write("memory.max", "max\n");
        write("pids.current", "3\n");
        let usage = version_2(dir.path()).unwrap();
        assert_eq!((usage.cpu_nanoseconds, usage.cfs_throttled_periods), (1_500_000, 2));
        assert_eq!((usage.memory_bytes, usage.working_set_bytes, usage.rss_bytes), (1000, 700, 600));
        assert_eq!((usage.memory_limit_bytes, usage.processes), (None, Some(3)));
        fs::remove_file(dir.path().join("memory.current")).unwrap();
        let root = version_2(dir.path()).unwrap();
        assert_eq!((root.memory_bytes, root.working_set_bytes), (1000, 700), "the root group");
    }

    #[test]
    fn the_machine_itself_uses_something() {
        if let Some(usage) = usage("") {
            assert!(usage.cpu_nanoseconds > 0 && usage.working_set_bytes > 0, "{usage:?}");
        }
    }
}

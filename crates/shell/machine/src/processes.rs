//! Processes by what they are, never by a broad name: pid files with their start time, cgroup members, shims of a socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Result, file};

/// How often a wait for processes to end looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// A process that cannot be mistaken for another one that got the same pid later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks after boot.
    started: u64,
}

impl Process {
    /// The running process of this pid.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; the fields after its end are plain. Field 3 is the state, 22 the start.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (state != "Z").then_some(Self { pid, started })
    }

    /// Reads what `write` wrote; None where no such process runs any more.
    pub fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let known = Self { pid: pid.parse().ok()?, started: started.parse().ok()? };
        (Self::of(known.pid) == Some(known)).then_some(known)
    }

    /// Records the process in a pid file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, format!("{} {}\n", self.pid, self.started)).map_err(file("write", path))
    }

    pub fn is_running(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

/// Asks processes to end, waits, and ends by force those that are still there.
pub fn end(processes: &[Process], grace: Duration) {
    signal_all(processes, Signal::SIGTERM);
    if !wait_gone(processes, grace) {
        signal_all(processes, Signal::SIGKILL);
        wait_gone(processes, grace.max(Duration::from_secs(5)));
    }
}

fn signal_all(processes: &[Process], signal: Signal) {
    for process in processes {
        process.signal(signal);
    }
}

fn wait_gone(processes: &[Process], at_most: Duration) -> bool {
    let until = Instant::now() + at_most;
    while processes.iter().any(Process::is_running) {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    true
}

/// Running processes that were given a path below this directory on their command line: a containerd by its
/// configuration, its shims by its socket.
pub fn given(dir: &Path) -> Vec<Process> {
    let mut prefix = dir.as_os_str().as_encoded_bytes().to_vec();
    prefix.push(b'/');
    let wanted = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).skip(1).any(|word| word.starts_with(&prefix))
    };
    let me = std::process::id() as i32;
    all().into_iter().filter(|pid| *pid != me && wanted(*pid)).filter_map(Process::of).collect()
}

fn all() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Every directory of a cgroup in every hierarchy, deepest first.
pub fn cgroup_dirs(cgroup: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut roots = vec![PathBuf::from(CGROUP_ROOT)];
    if let Ok(entries) = fs::read_dir(CGROUP_ROOT) {
        roots.extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    for root in roots {
        collect(&root.join(cgroup.trim_start_matches('/')), &mut found);
    }
    found
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        collect(&entry.path(), found);
    }
    found.push(dir.to_path_buf());
}

/// The processes inside a cgroup and all below it.
pub fn in_cgroup(cgroup: &str) -> Vec<Process> {
    let mut pids: Vec<i32> = cgroup_dirs(cgroup)
        .iter()
        .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
        .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids.into_iter().filter_map(Process::of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_names_one_process_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let me = Process::of(std::process::id() as i32).unwrap();
        me.write(&path).unwrap();
        assert_eq!(Process::read(&path), Some(me));
        fs::write(&path, format!("{} {}\n", me.pid, me.started + 1)).unwrap();
        assert_eq!(Process::read(&path), None, "the same pid with another start is another process");
    }

    #[test]
    fn ending_a_child_by_what_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut child =
            std::process::Command::new("cat").arg(&path).stdout(std::process::Stdio::null()).spawn().unwrap();
        // Between fork and exec the child still has our command line.
        let until = Instant::now() + Duration::from_secs(10);
        let mut found = given(dir.path());
        while found.is_empty() && Instant::now() < until {
            std::thread::sleep(LOOK_AGAIN);
            found = given(dir.path());
        }
        let pids: Vec<i32> = found.iter().map(|p| p.pid).collect();
        end(&found, Duration::from_secs(5));
        let _ = child.kill();
        assert!(!child.wait().unwrap().success());
        assert_eq!(pids, [child.id() as i32]);
    }
}

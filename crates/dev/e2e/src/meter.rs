//! What a control group uses, read from the kernel's files beside the cluster: `kubectl top` is held against it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;

const ROOT: &str = "/sys/fs/cgroup";
const READ_EVERY: Duration = Duration::from_millis(100);

/// One reading.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Timestamp,
    cpu_nanoseconds: u64,
    memory_bytes: u64,
}

/// Where the figures of one group are.
struct Files {
    cpu: PathBuf,
    memory: PathBuf,
    memory_stat: PathBuf,
    unified: bool,
}

impl Files {
    /// Of the group that a process is in; `None`: of the machine.
    fn of(process: Option<i32>) -> Result<Self> {
        let groups = match process {
            Some(process) => fs::read_to_string(format!("/proc/{process}/cgroup"))?,
            None => String::new(),
        };
        let unified = Path::new(ROOT).join("cgroup.controllers").exists();
        let dir = |controller: &str| -> Result<PathBuf> {
            let root = Path::new(ROOT).join(if unified { "" } else { controller });
            if process.is_none() {
                return Ok(root);
            }
            let mine =
                |line: &&str| line.split(':').nth(1).is_some_and(|all| all.split(',').any(|one| one == controller));
            let line = if unified { groups.lines().next() } else { groups.lines().find(mine) };
            let path = line.and_then(|line| line.splitn(3, ':').nth(2)).context("the process has no control group")?;
            Ok(root.join(path.trim_start_matches('/')))
        };
        if unified {
            let dir = dir("")?;
            let [cpu, memory, memory_stat] = ["cpu.stat", "memory.current", "memory.stat"].map(|file| dir.join(file));
            return Ok(Self { cpu, memory, memory_stat, unified });
        }
        let memory = dir("memory")?;
        Ok(Self {
            cpu: dir("cpuacct")?.join("cpuacct.usage"),
            memory_stat: memory.join("memory.stat"),
            memory: memory.join("memory.usage_in_bytes"),
            unified,
        })
    }

    fn read(&self) -> Option<Reading> {
        let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let line = |path: &Path, name: &str| -> Option<u64> {
            let text = fs::read_to_string(path).ok()?;
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        let (cpu, inactive) = match self.unified {
            true => (line(&self.cpu, "usage_usec ")? * 1000, "inactive_file "),
            false => (number(&self.cpu)?, "total_inactive_file "),
        };
        let all = number(&self.memory).or_else(|| {
            // The root group of version 2 has no such file.
            Some((in_kilobytes("MemTotal:")? - in_kilobytes("MemFree:")?) * 1024)
        })?;
        let memory_bytes = all.saturating_sub(line(&self.memory_stat, inactive).unwrap_or(0));
        Some(Reading { at: Timestamp::now(), cpu_nanoseconds: cpu, memory_bytes })
    }
}

fn in_kilobytes(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse().ok())
}

/// Reads a group's use until it is dropped.
pub struct Meter {
    readings: Arc<Mutex<Vec<Reading>>>,
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

impl Meter {
    /// Of the group that a process is in; `None`: of the machine.
    ///
    /// # Errors
    /// The process has no control group.
    pub fn start(process: Option<i32>) -> Result<Self> {
        let files = Files::of(process)?;
        let (readings, stop) = (Arc::<Mutex<Vec<Reading>>>::default(), Arc::<AtomicBool>::default());
        let (into, ended) = (readings.clone(), stop.clone());
        let worker = thread::spawn(move || {
            while !ended.load(Relaxed) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend(files.read());
                thread::sleep(READ_EVERY);
            }
        });
        Ok(Self { readings, stop, worker: Some(worker) })
    }

    fn near(&self, at: Timestamp) -> Option<Reading> {
        let readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        readings.iter().min_by_key(|reading| reading.at.duration_since(at).abs()).copied()
    }

    /// Thousandths of a core between two moments.
    pub fn millicores(&self, from: Timestamp, to: Timestamp) -> Option<f64> {
        let (from, to) = (self.near(from)?, self.near(to)?);
        let seconds = to.at.duration_since(from.at).as_secs_f64();
        (seconds > 0.0).then(|| (to.cpu_nanoseconds - from.cpu_nanoseconds) as f64 / seconds / 1e6)
    }

    /// The working set at a moment, in binary megabytes.
    pub fn megabytes(&self, at: Timestamp) -> Option<f64> {
        self.near(at).map(|reading| reading.memory_bytes as f64 / f64::from(1 << 20))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        drop(self.worker.take().map(JoinHandle::join));
    }
}

//! What this machine has: processors, memory, disk, names and versions.

use crate::config::KubeletConfig;
use podsync::NodeFacts;
use std::path::Path;

/// Facts read once at start.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Processors that may be used.
    pub cpus: i64,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// Size of the file system that holds pods, in bytes.
    pub disk_bytes: i64,
    /// CPU withheld from pods, thousandths of a core.
    pub reserved_cpu_milli: i64,
    /// Memory withheld from pods.
    pub reserved_memory_bytes: i64,
    /// Memory that is kept free by evictions, and so is not there for pods either.
    pub eviction_memory_bytes: i64,
    /// Most pods.
    pub pods_max: u32,
    /// Kernel release.
    pub kernel: String,
    /// `PRETTY_NAME` of the operating system.
    pub os_image: String,
    /// Changes with each boot.
    pub boot_id: String,
    /// Set once per installation.
    pub machine_id: String,
    /// Firmware's id, else the machine id.
    pub system_uuid: String,
}

fn first_line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_string()
}

impl Machine {
    /// Reads the facts.
    pub fn read(config: &KubeletConfig) -> Machine {
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = memory.lines().find_map(|l| l.strip_prefix("MemTotal:"));
        let kib: i64 = total.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0);
        let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let pretty = os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"');
        let machine_id = first_line("/etc/machine-id");
        let uuid = first_line("/sys/class/dmi/id/product_uuid");
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1)),
            memory_bytes: kib * 1024,
            disk_bytes: disk(&config.root_dir).0,
            reserved_cpu_milli: config.reserved_cpu_milli,
            reserved_memory_bytes: config.reserved_memory_bytes,
            eviction_memory_bytes: i64::try_from(config.pressure.memory_available_bytes_min).unwrap_or(0),
            pods_max: config.pods_max,
            kernel: first_line("/proc/sys/kernel/osrelease"),
            os_image: pretty.to_string(),
            boot_id: first_line("/proc/sys/kernel/random/boot_id"),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
        }
    }

    /// What pods may use of a resource, in thousandths of its unit.
    pub fn allocatable_milli(&self, name: &str) -> i128 {
        match name {
            "cpu" => i128::from(self.cpus * 1000 - self.reserved_cpu_milli),
            "memory" => {
                let withheld = self.reserved_memory_bytes + self.eviction_memory_bytes;
                i128::from((self.memory_bytes - withheld).max(0)) * 1000
            }
            "ephemeral-storage" => i128::from(self.disk_bytes / 10 * 9) * 1000,
            "pods" => i128::from(self.pods_max) * 1000,
            _ => 0,
        }
    }
}

impl Machine {
    /// What decides whether the node takes a pod.
    pub fn facts(&self, config: &KubeletConfig) -> NodeFacts {
        let amount = |name: &str| {
            let milli = self.allocatable_milli(name);
            let value = if name == "cpu" { milli } else { milli / 1000 };
            (name.to_string(), i64::try_from(value).unwrap_or(i64::MAX))
        };
        let mut numbers = self.kernel.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        NodeFacts {
            allocatable: ["cpu", "memory", "ephemeral-storage", "pods"].map(amount).into(),
            kernel: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
            unsafe_sysctls: config.allowed_unsafe_sysctls.clone(),
            app_armor: first_line("/sys/module/apparmor/parameters/enabled") == "Y",
            // containerd tells of this from 2.0 on, by a call that this client does not make yet
            strict_groups: false,
        }
    }
}

/// Size and free bytes of the file system at `path`.
pub fn disk(path: &Path) -> (i64, i64) {
    let Ok(stat) = nix::sys::statvfs::statvfs(path) else { return (0, 0) };
    let unit = i64::try_from(stat.fragment_size()).unwrap_or(0);
    let blocks = |n: u64| i64::try_from(n).unwrap_or(0).saturating_mul(unit);
    (blocks(stat.blocks()), blocks(stat.blocks_available()))
}

//! Servers of others that a benchmark starts beside Tug's own, and what they use.

use std::io::ErrorKind;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Kernel ticks a second, in which `/proc/PID/stat` counts.
const TICKS: f64 = 100.0;

/// A process that ends with this value.
pub struct Running(pub Child);

impl Running {
    /// Starts a program; `None` where it is not installed.
    ///
    /// # Errors
    /// It is there and cannot be started.
    pub fn start(mut command: Command) -> Result<Option<Self>> {
        match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => Ok(Some(Self(child))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot start {:?}", command.get_program())),
        }
    }

    /// Seconds of processor time and resident megabytes, with those of its children.
    pub fn used(&self) -> Result<(f64, f64)> {
        let pid = self.0.id();
        let (mut seconds, mut megabytes) = (0.0, 0.0);
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
            let fields: Vec<&str> = rest.split(' ').collect();
            let field = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
            if id == pid || field(1) as u32 == pid {
                seconds += (field(11) + field(12)) / TICKS;
                megabytes += field(21) * 4096.0 / 1e6;
            }
        }
        Ok((seconds, megabytes))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A master process takes its workers along when it is asked to end.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

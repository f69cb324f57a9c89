//! A private containerd: writes its configuration, starts it in its own session, adopts one that still runs, restarts it when it dies.

use crate::runtime::Runtime;
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Longest wait for a fresh containerd to answer; one that ends is not waited for. Slow machines need most of it.
const START_MAX: Duration = Duration::from_secs(90);
/// Delay between restarts of a containerd that keeps dying.
const RESTART_DELAY_MAX: Duration = Duration::from_secs(30);
/// A containerd that lived this long is restarted without delay.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// Log file size at which it is moved aside before a start.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// `CAP_SYS_RESOURCE`, needed to lower an out-of-memory score.
const CAP_SYS_RESOURCE: u32 = 24;

/// Where a private containerd lives.
#[derive(Clone, Debug)]
pub struct ContainerdConfig {
    /// Its private directory: configuration, state, images, socket, log.
    pub dir: PathBuf,
    /// The program, looked up in `PATH` unless absolute.
    pub binary: PathBuf,
    /// The OCI runtime, looked up in `PATH` unless absolute.
    pub runc: PathBuf,
    /// Directory of CNI plugins.
    pub cni_bin_dir: PathBuf,
    /// Directory of CNI network lists, written by the network component.
    pub cni_conf_dir: PathBuf,
    /// Image of the process that holds a pod's namespaces.
    pub sandbox_image: String,
    /// Port for exec and attach streams on the loopback address; 0 lets containerd choose.
    pub stream_port: u16,
}

impl ContainerdConfig {
    /// Defaults of Debian's packages under a private directory.
    pub fn new(dir: PathBuf) -> ContainerdConfig {
        ContainerdConfig {
            cni_conf_dir: dir.join("cni.d"),
            dir,
            binary: "containerd".into(),
            runc: "runc".into(),
            cni_bin_dir: "/usr/lib/cni".into(),
            sandbox_image: "registry.k8s.io/pause:3.10.2".into(),
            stream_port: 0,
        }
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("c.sock")
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("containerd.pid")
    }

    /// The configuration file's text for a containerd of this major version (1 or 2).
    pub fn toml(&self, major: u32, runc: &Path, clamp_oom_score: bool) -> String {
        let dir = self.dir.display();
        let (runtime, images) = match major {
            1 => ("io.containerd.grpc.v1.cri", "io.containerd.grpc.v1.cri"),
            _ => ("io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"),
        };
        let grpc = "io.containerd.grpc.v1.cri";
        let mut text = String::new();
        let disabled = [
            "io.containerd.snapshotter.v1.aufs",
            "io.containerd.snapshotter.v1.btrfs",
            "io.containerd.snapshotter.v1.zfs",
            "io.containerd.snapshotter.v1.devmapper",
            "io.containerd.internal.v1.tracing",
            "io.containerd.tracing.processor.v1.otlp",
        ];
        let _ = writeln!(
            text,
            "version = {}\nroot = \"{dir}/root\"\nstate = \"{dir}/state\"",
            if major == 1 { 2 } else { 3 }
        );
        let _ = writeln!(text, "disabled_plugins = {disabled:?}\n[grpc]\n  address = \"{}\"", self.socket().display());
        let _ = writeln!(text, "[plugins.\"{runtime}\"]");
        if major == 1 {
            let _ = writeln!(text, "  sandbox_image = \"{}\"", self.sandbox_image);
            let _ = writeln!(
                text,
                "  stream_server_address = \"127.0.0.1\"\n  stream_server_port = \"{}\"",
                self.stream_port
            );
        }
        let _ = writeln!(text, "  restrict_oom_score_adj = {clamp_oom_score}\n  netns_mounts_under_state_dir = true");
        let _ = writeln!(text, "  stats_collect_period = 2\n  [plugins.\"{runtime}\".cni]");
        let bins = self.cni_bin_dir.display();
        let _ = match major {
            1 => writeln!(text, "    bin_dir = \"{bins}\""),
            _ => writeln!(text, "    bin_dirs = [\"{bins}\"]"),
        };
        let _ = writeln!(text, "    conf_dir = \"{}\"", self.cni_conf_dir.display());
        let _ = writeln!(
            text,
            "  [plugins.\"{runtime}\".containerd.runtimes.runc]\n    runtime_type = \"io.containerd.runc.v2\""
        );
        let _ =
            writeln!(text, "    [plugins.\"{runtime}\".containerd.runtimes.runc.options]\n      SystemdCgroup = false");
        let _ = writeln!(text, "      BinaryName = \"{}\"\n      Root = \"{dir}/runc\"", runc.display());
        let _ = writeln!(text, "[plugins.\"{images}\".registry]\n  config_path = \"{dir}/certs.d\"");
        if major > 1 {
            let _ = writeln!(text, "[plugins.\"{images}\".pinned_images]\n  sandbox = \"{}\"", self.sandbox_image);
            let _ = writeln!(text, "[plugins.\"{grpc}\"]\n  stream_server_address = \"127.0.0.1\"");
            let _ = writeln!(text, "  stream_server_port = \"{}\"", self.stream_port);
        }
        let _ = writeln!(text, "[plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"{dir}/opt\"");
        text
    }

    /// Makes sure a containerd answers on the socket: adopts a running one or starts one.
    ///
    /// # Errors
    /// When the program is missing or does not answer in time; the text says what to do.
    pub async fn ensure(&self) -> Result<()> {
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        std::fs::set_permissions(&self.dir, std::fs::Permissions::from_mode(0o711))?;
        if let Some(pid) = self.running_pid() {
            // it may still be starting: the process that started it could have died in between
            match wait_ready(&self.socket(), pid).await {
                Ok(()) => {
                    tracing::info!(pid, socket = %self.socket().display(), "adopted the running containerd");
                    return Ok(());
                }
                Err(error) => tracing::warn!(pid, "running containerd does not answer, starting it again: {error:#}"),
            }
            kill(pid).await;
        }
        self.start().await
    }

    async fn start(&self) -> Result<()> {
        let hint = "install it: apt-get install containerd runc containernetworking-plugins";
        let binary = which(&self.binary).with_context(|| format!("containerd is not installed; {hint}"))?;
        let runc = which(&self.runc).with_context(|| format!("runc is not installed; {hint}"))?;
        if !self.cni_bin_dir.join("bridge").exists() {
            bail!("no CNI plugins in {}; {hint}", self.cni_bin_dir.display());
        }
        let version = tokio::process::Command::new(&binary).arg("--version").output().await;
        let version = version.with_context(|| format!("cannot run {}", binary.display()))?;
        let major = major_version(&String::from_utf8_lossy(&version.stdout));
        for sub in ["certs.d", "opt"] {
            std::fs::create_dir_all(self.dir.join(sub))?;
        }
        std::fs::create_dir_all(&self.cni_conf_dir)?;
        let config = self.dir.join("config.toml");
        std::fs::write(&config, self.toml(major, &runc, !has_capability(CAP_SYS_RESOURCE)))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let log_path = self.dir.join("containerd.log");
        if std::fs::metadata(&log_path).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
            std::fs::rename(&log_path, log_path.with_extension("log.1"))?;
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&log_path)?;
        let _ = std::fs::remove_file(self.socket());
        let mut command = tokio::process::Command::new(&binary);
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.env_remove("NOTIFY_SOCKET");
        // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
        unsafe {
            command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        let pid = child.id().context("containerd ended at once")?;
        std::fs::write(self.pid_file(), pid.to_string())?;
        // reap it when it ends; its end is noticed through the socket
        tokio::spawn(async move { child.wait().await });
        let started = wait_ready(&self.socket(), pid).await;
        started.with_context(|| format!("containerd did not come up, see {}", log_path.display()))
    }

    fn running_pid(&self) -> Option<u32> {
        let pid: u32 = std::fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        // pids are reused: it is ours only if it runs with our configuration file
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let config = self.dir.join("config.toml");
        let ours = arguments.split(|b| *b == 0).any(|a| a == config.as_os_str().as_encoded_bytes());
        ours.then_some(pid)
    }

    /// Keeps it running until `stop`; containers live on when it dies, so a restart is all that is needed.
    pub async fn supervise(self, stop: CancellationToken) {
        let mut delay = Duration::ZERO;
        loop {
            let began = Instant::now();
            if let Some(pid) = self.running_pid() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = wait_exit(pid) => tracing::error!(pid, "containerd died, starting it again"),
                }
            }
            delay = if began.elapsed() > STABLE_AFTER { Duration::ZERO } else { delay };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
            if let Err(error) = self.start().await {
                tracing::error!("cannot restart containerd: {error:#}");
            }
            delay = (delay * 2).clamp(Duration::from_millis(500), RESTART_DELAY_MAX);
        }
    }

    /// Stops the containerd of this directory. Containers keep running; stop pods first.
    pub async fn stop(&self) {
        if let Some(pid) = self.running_pid() {
            kill(pid).await;
        }
        let _ = std::fs::remove_file(self.pid_file());
    }
}

/// Asks a process to end and waits up to ten seconds before it is killed.
async fn kill(pid: u32) {
    let target = nix::unistd::Pid::from_raw(pid.cast_signed());
    let _ = nix::sys::signal::kill(target, nix::sys::signal::Signal::SIGTERM);
    if tokio::time::timeout(Duration::from_secs(10), wait_exit(pid)).await.is_err() {
        let _ = nix::sys::signal::kill(target, nix::sys::signal::Signal::SIGKILL);
        let _ = tokio::time::timeout(Duration::from_secs(5), wait_exit(pid)).await;
    }
}

/// Returns when the process has ended, without polling: a pidfd becomes readable.
async fn wait_exit(pid: u32) {
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: pidfd_open takes two integers and returns a new descriptor that only we own.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.cast_signed(), 0) };
    if fd < 0 {
        return;
    }
    // SAFETY: the call above returned this descriptor and nothing else holds it.
    let owned = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // SAFETY: `owned` keeps the descriptor open for as long as it is registered.
    if let Ok(ready) = unsafe { tokio::io::unix::AsyncFd::register(owned) } {
        let _ = ready.readable().await;
    }
}

async fn wait_ready(socket: &Path, pid: u32) -> Result<()> {
    let end = Instant::now() + START_MAX;
    loop {
        if socket.exists() && Runtime::new(socket).version().await.is_ok() {
            return Ok(());
        }
        if !Path::new(&format!("/proc/{pid}")).exists() {
            bail!("the process ended while starting");
        }
        if Instant::now() > end {
            bail!("no answer on {} within {} s", socket.display(), START_MAX.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The major version in `containerd --version`; 1 when it cannot be read.
fn major_version(text: &str) -> u32 {
    let word = text
        .split_whitespace()
        .map(|w| w.trim_start_matches('v'))
        .find(|w| w.starts_with(|c: char| c.is_ascii_digit()) && w.contains('.'));
    word.and_then(|w| w.split('.').next()?.parse().ok()).unwrap_or(1)
}

fn which(program: &Path) -> Option<PathBuf> {
    if program.is_absolute() {
        return program.exists().then(|| program.to_path_buf());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|d| d.join(program)).find(|p| p.is_file())
}

fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let bits = line.and_then(|l| u64::from_str_radix(l.trim(), 16).ok()).unwrap_or(0);
    bits >> number & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_select_the_layout() {
        assert_eq!(major_version("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1"), 1);
        assert_eq!(major_version("containerd github.com/containerd/containerd/v2 v2.1.3 c787fb98"), 2);
        let config = ContainerdConfig::new("/x".into());
        let one = config.toml(1, Path::new("/usr/sbin/runc"), true);
        assert!(one.contains("version = 2\n") && one.contains("restrict_oom_score_adj = true"));
        let two = config.toml(2, Path::new("/usr/sbin/runc"), false);
        assert!(two.contains("version = 3\n") && two.contains("io.containerd.cri.v1.images\".pinned_images"));
    }
}

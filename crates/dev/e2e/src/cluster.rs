//! Making, driving and removing a cluster.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use machine::{namespaces, programs};
use serde_json::Value;

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A cluster that goes away with this value, also when a test panics.
pub struct Cluster {
    tug: PathBuf,
    dir: PathBuf,
    name: String,
    namespace: String,
    started: Instant,
}

impl Cluster {
    /// Enters a fresh network namespace and starts a cluster in it. The process must have one thread.
    ///
    /// # Errors
    /// Root is missing, or `tug up` failed: the error holds what it said.
    pub fn start(nodes: u16) -> Result<Self> {
        let id = std::process::id();
        let namespace = format!("tug-e2e-{id}");
        programs::run("ip", &["netns", "add", &namespace])?;
        namespaces::enter_network(&Path::new("/run/netns").join(&namespace))?;
        programs::run("ip", &["link", "set", "lo", "up"])?;
        let dir = std::env::temp_dir().join(format!("tug-e2e-{id}"));
        let cluster = Self { tug: tug()?, dir, name: format!("e2e-{id}"), namespace, started: Instant::now() };
        println!("{}", cluster.up(nodes)?);
        Ok(cluster)
    }

    /// Runs `tug up` again, as a user would after a crash.
    ///
    /// # Errors
    /// What `tug up` said.
    pub fn up(&self, nodes: u16) -> Result<String> {
        self.tug(&["up", "--nodes", &nodes.to_string(), "--data-dir", &self.dir.display().to_string()])
    }

    /// Time since the first `tug up` began.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn node(&self, index: u16) -> String {
        format!("{}-node-{index}", self.name)
    }

    /// Directory of a local node, with its pid file, log and containerd.
    pub fn node_dir(&self, index: u16) -> PathBuf {
        self.dir.join("nodes").join(index.to_string())
    }

    /// A program that finds the cluster as this cluster's administrator would.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.dir.join("admin.kubeconfig")).env("HOME", &self.dir).stdin(Stdio::null());
        command
    }

    /// Runs tug with this cluster's name.
    ///
    /// # Errors
    /// It ended with another code than 0.
    pub fn tug(&self, args: &[&str]) -> Result<String> {
        checked(self.command(&self.tug).args(args).args(["--name", &self.name]).output()?, "tug", args)
    }

    /// Runs tug with exactly these words; answers exit code and error output.
    ///
    /// # Errors
    /// It could not be started.
    pub fn tug_fails(&self, args: &[&str]) -> Result<(i32, String)> {
        let output = self.tug_command(args).output()?;
        Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// A tug command with exactly these words, to run in another way than `tug` does.
    pub fn tug_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(&self.tug);
        command.args(args);
        command
    }

    /// A kubectl command to run in another way than `kubectl` does.
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = self.command("kubectl");
        command.args(args);
        command
    }

    /// # Errors
    /// kubectl ended with another code than 0; the error holds what it said.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        checked(self.kubectl_command(args).output()?, "kubectl", args)
    }

    /// Runs kubectl where it is to fail; answers its error output.
    ///
    /// # Errors
    /// It did not fail.
    pub fn kubectl_fails(&self, args: &[&str]) -> Result<String> {
        let output = self.kubectl_command(args).output()?;
        if output.status.success() {
            bail!("`kubectl {}` was to fail", args.join(" "));
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Runs kubectl with a text on its standard input.
    ///
    /// # Errors
    /// As `kubectl`.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String> {
        let mut command = self.kubectl_command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("kubectl has no input")?.write_all(input.as_bytes())?;
        checked(child.wait_with_output()?, "kubectl", args)
    }

    /// # Errors
    /// kubectl refused the manifest.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl_with(&["apply", "-f", "-"], manifest)
    }

    /// An object as JSON.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&[&["get", "-o", "json"], args].concat())?)?)
    }

    /// A new namespace for a scenario; it is deleted with the cluster.
    ///
    /// # Errors
    /// It could not be made.
    pub fn new_namespace(&self, name: &str) -> Result<()> {
        self.kubectl(&["create", "namespace", name])?;
        eventually(Duration::from_secs(10), "the default service account", || {
            self.kubectl(&["get", "serviceaccount", "default", "-n", name]).map(|_| ())
        })
    }

    /// `IP:PORT` of a Service.
    ///
    /// # Errors
    /// There is no such Service.
    pub fn service(&self, namespace: &str, name: &str) -> Result<String> {
        self.kubectl(&[
            "get",
            "service",
            name,
            "-n",
            namespace,
            "-o",
            "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}",
        ])
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::env::var_os("TUG_E2E_KEEP").is_some() {
            eprintln!("kept: {} in network namespace {}", self.dir.display(), self.namespace);
            return;
        }
        let down = self.tug(&["down", "--delete", "--data-dir", &self.dir.display().to_string()]);
        if let Err(error) = down {
            eprintln!("cleaning up: {error:#}");
        }
        let _ = programs::run("ip", &["netns", "delete", &self.namespace]);
    }
}

/// The release build where there is one, else the debug build; `$TUG` overrides.
fn tug() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TUG") {
        return Ok(path.into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target"), PathBuf::from);
    let found =
        ["release", "debug"].map(|profile| target.join(profile).join("tug")).into_iter().find(|path| path.is_file());
    found
        .context("no tug program; build it: cargo build --release --package tug")?
        .canonicalize()
        .context("no tug program")
}

fn checked(output: Output, program: &str, args: &[&str]) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    bail!(
        "`{program} {}` failed ({}): {}{}",
        args.join(" "),
        output.status,
        text,
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Tries until it succeeds.
///
/// # Errors
/// The last failure, when the time is over.
pub fn eventually<T>(within: Duration, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let until = Instant::now() + within;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > until => {
                return Err(error.context(format!("{what}: not within {} s", within.as_secs())));
            }
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

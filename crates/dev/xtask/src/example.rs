//! The example of three tiers on a running cluster: its image, its manifest, and where it answers.

use std::path::Path;

use anyhow::{Context, Result};
use images::Image;

use crate::{packages, run};

const MANIFEST: &str = "examples/notes.yaml";
const REDIS: &str = "tug.local/redis:example";

#[derive(clap::Args)]
pub struct Options {
    /// Name of the cluster.
    #[arg(long, default_value = "tug")]
    name: String,
}

/// # Errors
/// The step that failed, with what to do about it.
pub fn run(options: &Options) -> Result<()> {
    packages::for_example()?;
    let tug = run::target("release").join("tug");
    let files = images::with_libraries(&[Path::new("/usr/bin/redis-server"), Path::new("/usr/bin/redis-cli")])?;
    let archive = run::target("release").join("redis.tar");
    std::fs::write(&archive, images::archive(&[Image { tag: REDIS, files, user: "10001:10001", port: Some(6379) }])?)
        .with_context(|| format!("cannot write {}", archive.display()))?;
    let archive = archive.display().to_string();
    run::program(&tug, &["image", "import", &archive, "--name", &options.name])
        .context("start a cluster first: cargo xtask up")?;
    let kubeconfig = run::output(&tug, &["kubeconfig", "--name", &options.name, "--path"])?;
    let kubectl = |args: &[&str]| run::program("kubectl", &[&["--kubeconfig", kubeconfig.trim()], args].concat());
    kubectl(&["apply", "-f", MANIFEST])?;
    for tier in ["statefulset/redis", "deployment/api", "deployment/web"] {
        kubectl(&["rollout", "status", tier, "-n", "notes", "--timeout=120s"])?;
    }
    kubectl(&["get", "pods,services,ingresses,horizontalpodautoscalers,persistentvolumeclaims", "-n", "notes"])
}

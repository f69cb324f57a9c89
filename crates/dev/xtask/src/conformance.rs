//! The public Kubernetes conformance suite, unmodified, against a Tug cluster.
//!
//! The suite's programs are built from upstream's Go modules, which is no part of this project: `--suite` names a folder
//! with `e2e.test`, `ginkgo` and `kubectl`, `--images` the archives of the images that its rows run.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::run;

const DEFAULT_FOCUS: &str = r"\[Conformance\]";

#[derive(clap::Args)]
pub struct Options {
    /// Go regular expression of the rows to run.
    focus: Option<String>,
    /// Folder with e2e.test, ginkgo and kubectl.
    #[arg(long, env = "TUG_CONFORMANCE_SUITE")]
    suite: PathBuf,
    /// Image archives to import into every local node first.
    #[arg(long, env = "TUG_CONFORMANCE_IMAGES", value_delimiter = ',')]
    images: Vec<PathBuf>,
    /// Cluster to run against.
    #[arg(long, default_value = "tug")]
    name: String,
    /// Rows at a time; serial rows run alone afterwards with `--serial`.
    #[arg(long, default_value_t = 6)]
    procs: u16,
    /// Run the rows marked [Serial] instead of those that may run side by side.
    #[arg(long)]
    serial: bool,
    /// Where reports go.
    #[arg(long, default_value = "target/conformance")]
    out: PathBuf,
}

/// # Errors
/// A program of the suite is missing, or a row failed.
pub fn run(options: &Options) -> Result<()> {
    let program = |name: &str| options.suite.join(name);
    for name in ["e2e.test", "ginkgo", "kubectl"] {
        if !program(name).is_file() {
            bail!(
                "{} not found; build the suite from Kubernetes' sources and name its folder with --suite",
                program(name).display()
            );
        }
    }
    let tug = run::target("release").join("tug");
    if !options.images.is_empty() {
        let mut args = vec!["image".to_owned(), "import".to_owned(), "--name".to_owned(), options.name.clone()];
        args.extend(options.images.iter().map(|path| path.display().to_string()));
        run::program(&tug, &args.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    let kubeconfig = std::env::temp_dir().join(format!("tug-conformance-{}.kubeconfig", std::process::id()));
    std::fs::write(&kubeconfig, run::output(&tug, &["kubeconfig", "--name", &options.name])?)?;
    let out = std::path::absolute(&options.out)?;
    std::fs::create_dir_all(&out)?;
    let outcome = suite(options, &kubeconfig.display().to_string(), &out.display().to_string());
    let _ = std::fs::remove_file(&kubeconfig);
    outcome
}

fn suite(options: &Options, kubeconfig: &str, out: &str) -> Result<()> {
    let label = if options.serial { "Serial" } else { "!Serial" };
    let procs = if options.serial { 1 } else { options.procs }.to_string();
    let kubectl = options.suite.join("kubectl").display().to_string();
    let focus = options.focus.as_deref().unwrap_or(DEFAULT_FOCUS);
    let e2e = options.suite.join("e2e.test").display().to_string();
    let args = [
        &["--procs", procs.as_str(), "--keep-going", "--no-color", "--silence-skips", "--timeout", "60m"][..],
        &["--junit-report", "junit.xml", "--output-dir", out, "--focus", focus, "--label-filter", label],
        &[e2e.as_str(), "--", "--kubeconfig", kubeconfig, "--kubectl-path", kubectl.as_str(), "--provider", "skeleton"],
        &["--num-nodes", "-1", "--allowed-not-ready-nodes", "-1", "--node-schedulable-timeout", "2m"],
        &["--system-daemonsets-startup-timeout", "1m", "--disable-log-dump", "--dump-logs-on-failure=false"],
        &["--prepull-images=false", "--node-os-distro", "custom", "--kube-api-content-type=application/json"],
    ]
    .concat();
    run::program(options.suite.join("ginkgo"), &args)
}

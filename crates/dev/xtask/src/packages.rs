//! The Debian packages that building, running and testing need, installed where they are missing.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::run;

/// A file or program that tells that a package is there, and the package.
const RUN: [(&str, &str); 8] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("cc", "gcc libc6-dev"),
];
const TEST: [(&str, &str); 5] =
    [("etcd", "etcd-server"), ("/bin/busybox", "busybox-static"), ("curl", "curl"), ("script", "bsdutils"), EXAMPLE];
const EXAMPLE: (&str, &str) = ("redis-server", "redis-server");
const KUBECTL: (&str, &str) = ("kubectl", "kubernetes-client");

/// Installs what running a cluster needs, and kubectl to look at it.
///
/// # Errors
/// Says what is missing where packages cannot be installed.
pub fn for_running() -> Result<()> {
    install(&[&RUN[..], &[KUBECTL]].concat())
}

/// Installs what the tests need beyond that.
///
/// # Errors
/// As `for_running`.
pub fn for_testing() -> Result<()> {
    install(&[&RUN[..], &TEST[..], &[KUBECTL]].concat())
}

/// Installs what the example's images are made of.
///
/// # Errors
/// As `for_running`.
pub fn for_example() -> Result<()> {
    install(&[EXAMPLE])
}

fn install(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(probe, _)| !is_there(probe)).flat_map(|(_, packages)| packages.split(' ')).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let line = missing.join(" ");
    if !is_there("apt-get") {
        bail!("missing: {line}; install them with this system's package manager (Debian's names)");
    }
    eprintln!("installing {line}");
    run::program("apt-get", &["update", "-q"]).context("run as root, or install the packages by hand")?;
    let args = [&["install", "-y", "-q", "--no-install-recommends"][..], &missing].concat();
    run::program("apt-get", &args).with_context(|| format!("install these packages by hand: {line}"))
}

fn is_there(probe: &str) -> bool {
    if probe.starts_with('/') {
        return Path::new(probe).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|dir| dir.join(probe).is_file())
}

//! Running the machine's own programs, and saying which are missing before anything is started.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{MachineError, Result};

/// A program a node needs, and the Debian package that has it.
pub const NEEDED: [(&str, &str); 6] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("ctr", "containerd"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
];

/// Where distributions put the CNI plugins.
const CNI_DIRS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
const CNI_PACKAGE: &str = "containernetworking-plugins";
const EXTRA_DIRS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin"];

/// Finds a program in `$PATH` and in the places that a bare service environment leaves out.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(EXTRA_DIRS.iter().map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// The directory of the CNI plugins.
///
/// # Errors
/// Names the package when no known directory has them.
pub fn cni_dir() -> Result<PathBuf> {
    let found =
        CNI_DIRS.iter().map(Path::new).find(|dir| dir.join("bridge").is_file() && dir.join("host-local").is_file());
    found.map(Path::to_path_buf).ok_or_else(|| missing(&["the CNI plugins bridge and host-local"], &[CNI_PACKAGE]))
}

/// Checks that all programs a node needs are there.
///
/// # Errors
/// Names all that are missing, with the one command that installs them.
pub fn check() -> Result<()> {
    let absent: Vec<_> = NEEDED.iter().filter(|(program, _)| find(program).is_none()).collect();
    let mut names: Vec<&str> = absent.iter().map(|(program, _)| *program).collect();
    let mut packages: Vec<&str> = absent.iter().map(|(_, package)| *package).collect();
    if cni_dir().is_err() {
        names.push("the CNI plugins bridge and host-local");
        packages.push(CNI_PACKAGE);
    }
    if names.is_empty() { Ok(()) } else { Err(missing(&names, &packages)) }
}

fn missing(names: &[&str], packages: &[&str]) -> MachineError {
    let mut packages = packages.to_vec();
    packages.sort_unstable();
    packages.dedup();
    let hint = format!("with: apt-get install -y {}", packages.join(" "));
    MachineError::Missing { missing: names.join(", "), hint }
}

/// Runs a program to its end and answers what it printed.
///
/// # Errors
/// The command line and what the program said on its error output.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    let path = find(program).ok_or_else(|| missing(&[program], &[program]))?;
    let line = || format!("{program} {}", args.join(" "));
    let output = Command::new(path)
        .args(args)
        .output()
        .map_err(|error| MachineError::Command { command: line(), message: error.to_string() })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(MachineError::Command { command: line(), message })
}

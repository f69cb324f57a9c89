//! What a node takes from its machine and gives back: namespaces, the fabric between local nodes, programs, processes.

pub mod fabric;
pub mod namespaces;
pub mod processes;
pub mod programs;
pub mod teardown;

use std::io;
use std::path::PathBuf;

/// What a step on the machine tried and why it failed. Final: the same step fails again until the machine changes.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error("cannot {action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot {action}")]
    System { action: &'static str, source: io::Error },
    #[error("`{command}` failed: {message}")]
    Command { command: String, message: String },
    #[error("{missing} not found; install {hint}")]
    Missing { missing: String, hint: String },
}

pub type Result<T> = std::result::Result<T, MachineError>;

pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> MachineError {
    let path = path.into();
    move |source| MachineError::File { action, path, source }
}

pub(crate) fn system(action: &'static str) -> impl FnOnce(nix::Error) -> MachineError {
    move |errno| MachineError::System { action, source: errno.into() }
}

//! One file per verb of the command line.

pub mod agent;
pub mod down;
pub mod image;
pub mod kubeconfig;
pub mod server;
pub mod status;
pub mod token;
pub mod up;
pub mod why;

use std::future::Future;

use anyhow::{Context, Result};

/// Words that no verb can make sense of: the program ends with code 2, as for flags that do not exist.
#[derive(Debug)]
pub struct WrongUsage(pub String);

impl std::fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUsage {}

/// Runs a verb's future on a small runtime: verbs wait for answers, they do not compute.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(work)
}

/// Fails early and clearly for verbs that change the machine.
pub fn need_root(verb: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { anyhow::bail!("`tug {verb}` needs root: sudo tug {verb}") }
}

//! The node agent: makes the containers of this machine match the pods bound to it, and reports back.

pub mod config;
pub mod containerd;
pub mod runtime;
pub mod server;

pub use config::{KubeletConfig, RuntimeSource};

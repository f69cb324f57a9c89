//! The node agent: makes the containers of this machine match the pods bound to it, and reports back.

mod cgroups;
mod check;
pub mod config;
mod container;
pub mod containerd;
mod env;
mod fields;
mod image_gc;
mod images;
mod logs;
mod machine;
mod mirrors;
mod names;
pub mod node;
mod objects;
mod operations;
mod pods;
mod pressure;
mod probes;
mod register;
mod run;
pub mod runtime;
mod sandbox;
pub mod server;
mod static_pods;
mod status;
mod tokens;
pub mod usage;
pub mod view;
mod volumes;
pub mod withdrawal;
mod worker;

pub use config::{KubeletConfig, RuntimeSource};
pub use node::Node;
pub use run::{prepare, run, run_prepared};
pub use view::LocalView;

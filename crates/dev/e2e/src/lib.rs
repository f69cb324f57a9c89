//! A real cluster in a network namespace of its own, driven by tug and kubectl as a user would.

mod cluster;
mod load;
mod meter;
mod scope;

pub use cluster::{Cluster, eventually};
pub use load::{Load, Outcome};
pub use meter::Meter;
pub use scope::{BUSYBOX, Scope, contains, import, import_busybox};

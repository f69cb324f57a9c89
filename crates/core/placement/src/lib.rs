//! Scheduling as a function: a snapshot and a pod in, a node or the reasons out.

pub mod affinity;
mod place;
mod plugin;
mod plugins;
pub mod pod;
pub mod resources;
pub mod snapshot;

pub use place::{Unschedulable, place};
pub use pod::PodInfo;
pub use snapshot::{NodeInfo, NodeSpec, Snapshot};

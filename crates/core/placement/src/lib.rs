//! Scheduling as a function: a snapshot and a pod in, a node, or the reasons and who has to make room, out.

pub mod affinity;
mod place;
mod plugin;
mod plugins;
pub mod pod;
mod preempt;
pub mod resources;
pub mod snapshot;
pub mod volumes;

pub use place::{Unschedulable, place, survey};
pub use plugins::volume_plan;
pub use pod::PodInfo;
pub use preempt::Preemption;
pub use snapshot::{Budget, NodeInfo, NodeSpec, Snapshot};

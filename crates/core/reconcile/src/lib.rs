//! What the controllers decide: one file per controller, view + key + now in, plan out; no clock, no IO.

pub mod conditions;
pub mod cronjob;
pub mod daemonset;
mod daemonset_rollout;
pub mod deployment;
mod deployment_rollout;
mod deployment_status;
pub mod disruption;
pub mod endpoint_slice;
pub mod endpoints;
pub mod garbage;
pub mod horizontal;
pub mod job;
pub mod load_balancer;
pub mod namespace;
mod node_fit;
pub mod node_lifecycle;
pub mod ownership;
pub mod plan;
pub mod pod;
pub mod pod_cidr;
mod pod_template;
mod pool;
pub mod replicaset;
pub mod revisions;
pub mod service_account;
pub mod service_address;
pub mod service_cidr;
pub mod statefulset;
mod statefulset_claims;
mod statefulset_status;
pub mod topology;
mod traffic_distribution;
pub mod volume;

pub use plan::{Note, Op, Plan, Resource};
pub use pod::PodView;

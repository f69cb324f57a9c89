//! Decides what a node does for one pod: desired pod + observed containers + now in, runtime actions and status out.

mod action;
mod admission;
mod backoff;
mod conditions;
mod ending;
pub mod eviction;
mod expand;
mod grant;
mod observed;
mod plan;
mod probe;
mod qos;
mod resize;
mod resources;
mod restart;
mod signal;
mod spec;
mod status;
mod status_container;
mod whole;

pub use action::{Action, KillReason, Plan, WholeRestart};
pub use admission::{NodeFacts, admit};
pub use backoff::{Backoff, CRASH_DELAY_FIRST, CRASH_DELAY_MAX, CRASH_RESET_AFTER, IMAGE_DELAY_FIRST, IMAGE_DELAY_MAX};
pub use expand::expand;
pub use grant::{DEFERRED, Grant, RESIZE_IN_PROGRESS, RESIZE_PENDING, condition, has_room, resize_message};
pub use observed::{Container, ContainerState, Memory, Observed, RESTARTING_ALL, Sandbox, Waiting};
pub use plan::plan;
pub use probe::{ProbeKind, ProbeSettings, ProbeTracker, ProbeVerdict};
pub use qos::{QosClass, oom_score_adj, qos_class};
pub use resize::{Resize, is_resizing, resizes};
pub use resources::{
    CgroupLimits, container_limits, cpu_quota, cpu_shares, effective_resources, inherit, pod_limits, pod_total,
    quantity_bytes, quantity_milli,
};
pub use restart::{DEADLINE_MESSAGE, is_past_deadline};
pub use signal::stop_signal;
pub use spec::{
    ContainerKind, all_containers, container, ephemeral_containers, grace_seconds, is_host_network, is_sidecar,
};
pub use status::{Pins, pod_is_finished, status};

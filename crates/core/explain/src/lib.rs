//! Why something does not run: objects, events and what placement said in, an ordered list of causes out.
//!
//! Objects are plain JSON, as the API shows them to anybody: the answer is the same whatever made them. The cause on
//! which the others depend comes first.

mod cause;
mod container;
mod ending;
mod image;
mod namespace;
mod node;
mod pending;
mod pod;
mod probe;
mod view;
mod words;
mod workload;

pub use cause::{Cause, Report};
pub use namespace::{NamespaceFacts, namespace};
pub use node::{NodeFacts, node};
pub use pending::{NodeAnswer, Placement};
pub use pod::{Claim, PodFacts, pod, state as pod_state, wants_logs, worst};
pub use workload::{WorkloadFacts, workload};

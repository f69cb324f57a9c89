//! Why something does not run: objects, events and what placement said in, an ordered list of causes out.
//!
//! Objects are plain JSON, as the API shows them to anybody: the answer is the same whatever made them. The cause on
//! which the others depend comes first.

mod cause;
mod claim;
mod container;
mod ending;
mod image;
mod ingress;
mod namespace;
mod node;
mod pending;
mod pod;
mod policy;
mod probe;
mod service;
mod view;
mod words;
mod workload;

pub use cause::{Cause, Report};
pub use claim::{ClaimFacts, claim, claim_of, claim_state, uses_claim};
pub use ingress::{Backend, Certificate, IngressFacts, backend_names, certificate_names, ingress, ingress_state};
pub use namespace::{NamespaceFacts, namespace};
pub use node::{NodeFacts, node};
pub use pending::{NodeAnswer, Placement};
pub use pod::{Claim, PodFacts, pod, state as pod_state, wants_logs, worst};
pub use service::{
    Attempt, Caller, ServiceFacts, destinations, makes_pods_of, selected, service, service_alone, wants_attempts,
};
pub use workload::{WorkloadFacts, workload};

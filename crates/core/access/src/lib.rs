//! Who may do what: RBAC, what nodes may touch, and the checks against privilege escalation, as pure decisions.

pub mod admission;
pub mod aggregation;
pub mod attributes;
pub mod certificates;
pub mod defaults;
pub mod escalation;
pub mod flow;
pub mod forbidden;
pub mod go;
pub mod ingress_graph;
pub mod node;
pub mod node_graph;
pub mod node_restriction;
pub mod quota;
pub mod rbac;
pub mod rule;

pub use attributes::{Attributes, Decision, User};
pub use forbidden::forbidden;
pub use node_graph::NodeGraph;
pub use rbac::{Object, Rbac, RbacKind};
pub use rule::Rule;

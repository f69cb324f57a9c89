//! Who may do what: RBAC as a pure decision over rules.

pub mod attributes;

pub use attributes::{Attributes, Decision, User};

//! NetworkPolicies, pods and namespaces in; the rules that guard one node's pods out.
//!
//! [`state`] keeps the rules step by step; [`compile`] reads a policy as matches, [`sets`] and [`chains`] share what is
//! equal, [`table`] writes the text. [`judge`] is the plain reading of the same objects, by which the rules are measured.

mod chains;
mod compile;
pub mod judge;
#[cfg(test)]
mod kernel;
mod sets;
pub mod state;
mod table;
pub mod view;

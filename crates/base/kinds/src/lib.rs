//! The kind table: one file per kind, one row of facts and small pure functions each.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod certificates;
pub mod columns;
mod coordination;
pub mod core;
mod discovery;
mod events;
pub mod expressions;
mod flowcontrol;
mod json;
pub mod kind;
mod metrics;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod rules;
mod scheduling;
mod storage;
mod table;

pub use kind::{Column, Kind, Scope, SelectableField, StoredAs, Subresource, Verbs};
pub use table::{builtin, find, find_resource};

//! The kind table: one file per kind, one row of facts and small pure functions each.

pub mod kind;

pub use kind::{Column, Kind, Scope, SelectableField, Subresource, Verbs};

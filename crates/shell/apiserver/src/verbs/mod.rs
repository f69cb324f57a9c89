//! The verbs, one file each, the same for every kind.

pub mod apply;
pub mod create;
pub mod delete;
pub mod list;
pub mod managers;
pub mod metadata;
pub mod metadata_rules;
pub mod patch;
pub mod update;
pub mod watch;

//! The kinds of the apps group.

mod controllerrevision;
mod daemonset;
mod deployment;
mod replicaset;
mod statefulset;
pub(crate) mod workload_rules;

use crate::kind::Kind;

const V1: (&str, &str) = ("apps", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![controllerrevision::kind(), daemonset::kind(), deployment::kind(), replicaset::kind(), statefulset::kind()]
}

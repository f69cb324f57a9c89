//! The kinds of the rbac.authorization.k8s.io group.

mod binding;
mod clusterrole;
mod clusterrolebinding;
mod role;
mod rolebinding;
mod rules;

use crate::kind::Kind;

const V1: (&str, &str) = ("rbac.authorization.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![clusterrolebinding::kind(), clusterrole::kind(), rolebinding::kind(), role::kind()]
}

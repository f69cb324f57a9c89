//! The kinds of the scheduling.k8s.io group.

mod priorityclass;

use crate::kind::Kind;

const V1: (&str, &str) = ("scheduling.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![priorityclass::kind()]
}

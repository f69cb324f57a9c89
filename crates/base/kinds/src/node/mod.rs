//! The kinds of the node.k8s.io group.

mod runtimeclass;

use crate::kind::Kind;

const V1: (&str, &str) = ("node.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![runtimeclass::kind()]
}

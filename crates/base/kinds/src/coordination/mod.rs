//! The kinds of the coordination.k8s.io group.

mod lease;

use crate::kind::Kind;

const V1: (&str, &str) = ("coordination.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![lease::kind()]
}

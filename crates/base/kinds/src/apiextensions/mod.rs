//! The kinds of the apiextensions.k8s.io group.

mod customresourcedefinition;

use crate::kind::Kind;

const V1: (&str, &str) = ("apiextensions.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![customresourcedefinition::kind()]
}

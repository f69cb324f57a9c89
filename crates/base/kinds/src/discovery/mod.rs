//! The kinds of the discovery.k8s.io group.

mod endpointslice;

use crate::kind::Kind;

const V1: (&str, &str) = ("discovery.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![endpointslice::kind()]
}

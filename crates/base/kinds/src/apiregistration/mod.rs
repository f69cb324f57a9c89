//! The kinds of the apiregistration.k8s.io group.

mod apiservice;

use crate::kind::Kind;

const V1: (&str, &str) = ("apiregistration.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![apiservice::kind()]
}

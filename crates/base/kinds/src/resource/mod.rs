//! The kinds of the resource.k8s.io group.

mod deviceclass;
mod resourceclaim;
mod resourceclaimtemplate;
mod resourceslice;

use crate::kind::Kind;

const V1: (&str, &str) = ("resource.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![deviceclass::kind(), resourceclaim::kind(), resourceclaimtemplate::kind(), resourceslice::kind()]
}

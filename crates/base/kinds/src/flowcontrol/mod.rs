//! The kinds of the flowcontrol.apiserver.k8s.io group.

mod flowschema;
mod prioritylevelconfiguration;

use crate::kind::Kind;

const V1: (&str, &str) = ("flowcontrol.apiserver.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![flowschema::kind(), prioritylevelconfiguration::kind()]
}

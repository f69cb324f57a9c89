//! The kinds of the certificates.k8s.io group.

mod certificatesigningrequest;

use crate::kind::Kind;

const V1: (&str, &str) = ("certificates.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![certificatesigningrequest::kind()]
}

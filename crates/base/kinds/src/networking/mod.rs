//! The kinds of the networking.k8s.io group.

mod ingress;
mod ingressclass;
mod ipaddress;
mod networkpolicy;
mod servicecidr;

use crate::kind::Kind;

const V1: (&str, &str) = ("networking.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![ingressclass::kind(), ingress::kind(), ipaddress::kind(), networkpolicy::kind(), servicecidr::kind()]
}

//! The kinds of the authentication.k8s.io group.

mod selfsubjectreview;
mod tokenreview;

use crate::kind::Kind;

const V1: (&str, &str) = ("authentication.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![selfsubjectreview::kind(), tokenreview::kind()]
}

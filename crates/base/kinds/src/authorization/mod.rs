//! The kinds of the authorization.k8s.io group.

mod localsubjectaccessreview;
mod selfsubjectaccessreview;
mod selfsubjectrulesreview;
mod subjectaccessreview;

use crate::kind::Kind;

const V1: (&str, &str) = ("authorization.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![
        localsubjectaccessreview::kind(),
        selfsubjectaccessreview::kind(),
        selfsubjectrulesreview::kind(),
        subjectaccessreview::kind(),
    ]
}

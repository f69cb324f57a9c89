//! The kinds of the events.k8s.io group.

mod event;

use crate::kind::Kind;

const V1: (&str, &str) = ("events.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![event::kind()]
}

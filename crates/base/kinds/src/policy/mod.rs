//! The kinds of the policy group.

mod poddisruptionbudget;

use crate::kind::Kind;

const V1: (&str, &str) = ("policy", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![poddisruptionbudget::kind()]
}

//! The kinds of the batch group.

mod cronjob;
mod job;

use crate::kind::Kind;

const V1: (&str, &str) = ("batch", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![cronjob::kind(), job::kind()]
}

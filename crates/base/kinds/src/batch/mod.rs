//! The kinds of the batch group.

mod cronjob;
mod indexes;
mod job;
mod job_rules;
mod job_status;
mod job_update;
mod pod_failure_rules;

use crate::kind::Kind;

const V1: (&str, &str) = ("batch", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![cronjob::kind(), job::kind()]
}

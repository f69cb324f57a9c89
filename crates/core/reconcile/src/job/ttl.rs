//! When a finished Job is to be removed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;

/// Time left of `ttlSecondsAfterFinished`, zero when it is over; `None` for a Job that is not removed.
pub fn time_left(job: &Job, now: Timestamp) -> Option<Duration> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let ttl = SignedDuration::from_secs(i64::from(job.spec.as_ref()?.ttl_seconds_after_finished?));
    let finished = super::finished_condition(job)?.last_transition_time.as_ref()?.0;
    let left = finished.checked_add(ttl).ok()?.duration_since(now);
    Some(Duration::try_from(left).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_finished_jobs_with_a_ttl_go() {
        let left = |ttl: Option<i32>, kind: &str, deleted: Option<&str>, now: &str| {
            let job: Job = serde_json::from_value(json!({
                "metadata": { "name": "j", "deletionTimestamp": deleted },
                "spec": { "template": {}, "ttlSecondsAfterFinished": ttl },
                "status": { "conditions": [
                    { "type": kind, "status": "True", "lastTransitionTime": "2030-01-01T00:00:00Z" }] },
            }))
            .unwrap();
            time_left(&job, now.parse().unwrap()).map(|left| left.as_secs())
        };
        let (early, late) = ("2030-01-01T00:00:04Z", "2030-01-01T00:01:00Z");
        assert_eq!(left(Some(10), "Complete", None, early), Some(6));
        assert_eq!(left(Some(10), "Failed", None, late), Some(0));
        assert_eq!(left(Some(0), "Complete", None, "2030-01-01T00:00:00Z"), Some(0));
        assert_eq!(left(None, "Complete", None, late), None);
        assert_eq!(left(Some(10), "FailureTarget", None, late), None);
        assert_eq!(left(Some(10), "Complete", Some(early), late), None);
    }
}

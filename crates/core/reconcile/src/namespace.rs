//! Namespace deletion: what a pass over the content says about how far it is.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::conditions::seconds;
use crate::job::TRACKING;
use crate::plan::to_value;

pub const FINALIZER: &str = "kubernetes";
/// So long after its deletion a namespace may still receive what was on its way when it began; the stated time of a
/// deletion is cut to whole seconds.
const ARRIVALS_MAX: SignedDuration = SignedDuration::from_secs(2);

/// What one pass over a terminating namespace found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub discovery_failure: Option<String>,
    /// Deletions that were refused, and content that stays though nothing is known to be pending.
    pub content_failures: Vec<String>,
    /// Objects left per `resource.group`.
    pub remaining: BTreeMap<String, usize>,
    /// Objects left per finalizer they wait for.
    pub finalizers: BTreeMap<String, usize>,
    /// Pods left that ended, and that nothing holds but their Job, which has not counted them.
    pub held_by_jobs: usize,
}

impl Report {
    /// Nothing is left and nothing went wrong: the namespace may go.
    pub fn is_done(&self) -> bool {
        self.discovery_failure.is_none() && self.content_failures.is_empty() && self.remaining.is_empty()
    }

    /// Whether other content may go, too, after the pods: it protects or serves them for as long as they run.
    ///
    /// Pods that wait for their Job alone have ended. A Job with retries per index keeps a failed pod until there is its
    /// replacement, which nobody can create any more: the Job has to go first.
    pub fn may_go_on(&self) -> bool {
        self.content_failures.is_empty() && self.remaining.values().sum::<usize>() == self.held_by_jobs
    }

    /// Notes what is left of a collection after its deletion: its `resource.group`, and `gvr` for the message of what
    /// nobody seems to work on.
    pub fn note<'a>(
        &mut self,
        resource: String,
        gvr: &str,
        namespace: &str,
        left: impl Iterator<Item = &'a ObjectMeta>,
    ) {
        let (mut count, mut pending) = (0, false);
        for meta in left {
            count += 1;
            let finalizers = meta.finalizers.as_deref().unwrap_or_default();
            for finalizer in finalizers {
                *self.finalizers.entry(finalizer.clone()).or_insert(0) += 1;
            }
            let (grace, held) = (meta.deletion_grace_period_seconds.unwrap_or(0), is_held_by_job(meta));
            self.held_by_jobs += usize::from(held);
            pending |= held || (grace > 0 && finalizers.is_empty());
        }
        if count == 0 {
            return;
        }
        *self.remaining.entry(resource).or_insert(0) += count;
        if !pending {
            self.content_failures
                .push(format!("unexpected items still remain in namespace: {namespace} for gvr: {gvr}"));
        }
    }
}

fn is_held_by_job(meta: &ObjectMeta) -> bool {
    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
    meta.deletion_grace_period_seconds == Some(0) && matches!(finalizers, [only] if only == TRACKING)
}

/// How long to wait before a pass may be the last one: what was admitted before the deletion is stored by then.
pub fn arrivals_end_in(namespace: &Namespace, now: Timestamp) -> Option<Duration> {
    let since = namespace.metadata.deletion_timestamp.as_ref()?.0;
    let left = ARRIVALS_MAX.checked_sub(now.duration_since(since))?;
    // A clock that went back must not keep the namespace for longer.
    Duration::try_from(left.min(ARRIVALS_MAX)).ok().filter(|left| !left.is_zero())
}

/// Whether the namespace is being deleted and still waits for its content.
pub fn is_pending(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
    namespace.metadata.deletion_timestamp.is_some() && finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

/// The status patch that shows the report, or nothing when it shows already.
pub fn status(namespace: &Namespace, report: &Report, now: Timestamp) -> Option<Value> {
    let list = |counts: &BTreeMap<String, usize>, verb: &str| {
        counts
            .iter()
            .map(|(what, count)| format!("{what} {verb} {count} resource instances"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let condition = |kind: &str, failure: Option<(&str, String)>, fine: (&str, &str)| {
        let status = if failure.is_some() { "True" } else { "False" };
        let (reason, message) = failure.unwrap_or((fine.0, fine.1.to_owned()));
        NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(seconds(now)),
        }
    };
    let content = (!report.content_failures.is_empty()).then(|| {
        let (count, all) = (report.content_failures.len(), report.content_failures.join(", "));
        ("ContentDeletionFailed", format!("Failed to delete all resource types, {count} remaining: {all}"))
    });
    let remaining = (!report.remaining.is_empty())
        .then(|| ("SomeResourcesRemain", format!("Some resources are remaining: {}", list(&report.remaining, "has"))));
    let finalizers = (!report.finalizers.is_empty()).then(|| {
        let held = list(&report.finalizers, "in");
        ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {held}"))
    });
    let wanted = [
        condition(
            "NamespaceDeletionDiscoveryFailure",
            report.discovery_failure.clone().map(|error| ("DiscoveryFailed", error)),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        condition(
            "NamespaceDeletionContentFailure",
            content,
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        condition("NamespaceContentRemaining", remaining, ("ContentRemoved", "All content successfully removed")),
        condition(
            "NamespaceFinalizersRemaining",
            finalizers,
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    let status = namespace.status.clone().unwrap_or_default();
    let known = status.conditions.unwrap_or_default();
    let mut conditions = known.clone();
    for mut condition in wanted {
        if let Some(old) = conditions.iter_mut().find(|old| old.type_ == condition.type_) {
            if old.status == condition.status {
                condition.last_transition_time.clone_from(&old.last_transition_time);
            }
            *old = condition;
        } else {
            conditions.push(condition);
        }
    }
    let terminating = status.phase.as_deref() == Some("Terminating");
    (conditions != known || !terminating)
        .then(|| json!({ "phase": "Terminating", "conditions": to_value(&conditions) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(deleted: i64) -> Namespace {
        let at = seconds(Timestamp::from_second(deleted).unwrap());
        Namespace { metadata: ObjectMeta { deletion_timestamp: Some(at), ..Default::default() }, ..Default::default() }
    }

    #[test]
    fn a_last_pass_waits_for_what_was_on_its_way() {
        let wait =
            |now| arrivals_end_in(&namespace(100), Timestamp::from_second(now).unwrap()).map(|left| left.as_secs());
        assert_eq!([90, 100, 101, 102, 500].map(wait), [Some(2), Some(2), Some(1), None, None]);
        assert_eq!(arrivals_end_in(&Namespace::default(), Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn what_is_left_is_pending_or_unexpected() {
        let (mut report, stuck) =
            (Report::default(), ObjectMeta { finalizers: Some(vec!["x/y".into()]), ..Default::default() });
        let ending = ObjectMeta { deletion_grace_period_seconds: Some(30), ..Default::default() };
        report.note("jobs.batch".into(), "batch/v1, Resource=jobs", "a", [].into_iter());
        assert!(report.is_done());
        report.note("pods.".into(), "/v1, Resource=pods", "a", [&ending, &stuck].into_iter());
        assert!(!report.may_go_on() && report.content_failures.is_empty());
        report.note("jobs.batch".into(), "batch/v1, Resource=jobs", "a", [&stuck].into_iter());
        assert_eq!(report.remaining, [("jobs.batch".into(), 1), ("pods.".into(), 2)].into());
        assert_eq!(report.finalizers, [("x/y".into(), 2)].into());
        assert_eq!(
            report.content_failures,
            ["unexpected items still remain in namespace: a for gvr: batch/v1, Resource=jobs"]
        );
    }

    #[test]
    fn jobs_go_before_pods_that_wait_for_them() {
        let pod = |grace, finalizer: &str| ObjectMeta {
            deletion_grace_period_seconds: Some(grace),
            finalizers: Some(vec![finalizer.to_owned()]),
            ..Default::default()
        };
        for (pod, goes_on) in [(pod(0, TRACKING), true), (pod(30, TRACKING), false), (pod(0, "x/y"), false)] {
            let mut report = Report::default();
            report.note("pods.".into(), "/v1, Resource=pods", "a", [&pod].into_iter());
            assert_eq!((report.may_go_on(), report.is_done()), (goes_on, false), "{pod:?}");
        }
    }
}

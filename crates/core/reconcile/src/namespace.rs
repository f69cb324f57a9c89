//! Namespace deletion: what a pass over the content says about how far it is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use serde_json::{Value, json};

use crate::conditions::seconds;
use crate::plan::to_value;

pub const FINALIZER: &str = "kubernetes";

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
}

impl Report {
    /// Nothing is left and nothing went wrong: the namespace may go.
    pub fn is_done(&self) -> bool {
        self.discovery_failure.is_none() && self.content_failures.is_empty() && self.remaining.is_empty()
    }
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

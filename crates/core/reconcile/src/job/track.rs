//! Counting a Job's ended pods and writing its status, one step at a time.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{JobCondition, JobStatus, UncountedTerminatedPods};
use serde_json::json;

use super::backoff::Backoff;
use super::indexes::Indexes;
use super::manage::release;
use super::{Finish, State, UNCOUNTED_PODS_MAX, is_tracked};
use crate::PodView;
use crate::conditions::seconds;
use crate::plan::{JOBS, Note, Op, PatchKind, Plan, Step, difference};

/// What ended and how it is recorded.
#[derive(Default)]
struct Record {
    succeeded: Vec<String>,
    failed: Vec<String>,
    indexes: Vec<i64>,
    /// May lose their finalizers once this record is stored.
    released: Vec<Arc<PodView>>,
    /// More pods wait for the next round.
    full: bool,
}

impl State<'_> {
    /// The next step: a status that differs from the stored one is written; once it is stored, finalizers go; once
    /// those are gone, the uids become counts. Empty when all is counted.
    pub fn track(&self) -> Plan {
        let mut plan = Plan::default();
        // As long as pods run that nobody told to end, the Job is not over.
        let finish = self.finish.as_ref().filter(|_| self.active.is_empty());
        let mut status = self.status.clone();
        let mut note = self.observe(&mut status, finish);
        let record = self.record(&mut status, finish);
        self.write_record(&mut status, &record);
        let terminating = status.terminating.unwrap_or(0);
        let done = record.released.is_empty() && !record.full && terminating == 0;
        if let Some(finish) = self.finish.as_ref().filter(|finish| !finish.decided) {
            let interim = if finish.success { "SuccessCriteriaMet" } else { "FailureTarget" };
            self.push_condition(&mut status, interim, finish);
        } else if let Some(finish) = finish.filter(|_| done && record.succeeded.is_empty() && record.failed.is_empty())
        {
            note = Some(self.end(&mut plan, &mut status, finish));
        }
        if let Some(difference) = difference(&self.status, &status) {
            // Bound to the revision that was counted from: a second counter, or a stale cache, cannot win.
            let body =
                json!({ "metadata": { "resourceVersion": self.job.metadata.resource_version }, "status": difference });
            let (namespace, name) = (self.namespace().to_owned(), self.name().to_owned());
            let subresource = Some("status");
            let op = Op::Patch { resource: JOBS, namespace, name, subresource, kind: PatchKind::Update, body };
            plan.push(Step { op, done: note, failed: None });
        } else {
            plan.batch = record.released.iter().map(|pod| release(pod)).collect();
            plan.notes.clear();
        }
        plan
    }

    /// What to remember of failures once a status was written.
    pub fn backoff(&self) -> Backoff {
        self.backoff
    }

    /// Times, numbers of live pods and suspension.
    fn observe(&self, status: &mut JobStatus, finish: Option<&Finish>) -> Option<Note> {
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let now = seconds(self.now);
        // A Job whose last pod succeeded while it was suspended has to say when it ran, unless it never had to.
        let nothing = self.spec.completions == Some(0);
        let ends = self.finish.is_some() && !nothing;
        if status.start_time.is_none() && (!self.is_suspended() || ends) {
            status.start_time = Some(now.clone());
        }
        status.active = Some(count(self.active.len())).filter(|active| *active > 0);
        status.ready = Some(count(self.active.iter().filter(|pod| pod.ready).count()));
        status.terminating = Some(count(self.terminating().count()));
        if finish.is_some() || self.finish.is_some() || self.is_deleting() {
            return None;
        }
        let about = self.about();
        if self.is_suspended() {
            let changed = self.set_condition(status, "Suspended", "True", "JobSuspended", "Job suspended");
            if changed {
                status.start_time = None;
            }
            return changed.then(|| Note::normal(&about, "Suspended", "Job suspended"));
        }
        let changed = self.set_condition(status, "Suspended", "False", "JobResumed", "Job resumed");
        if changed {
            // The deadline counts from the resumption.
            status.start_time = Some(now);
        }
        changed.then(|| Note::normal(&about, "Resumed", "Job resumed"))
    }

    /// Turns uids whose finalizers are gone into counts, and records pods that ended since.
    fn record(&self, status: &mut JobStatus, finish: Option<&Finish>) -> Record {
        let held: HashSet<&str> = self.owned.iter().filter(|pod| is_tracked(pod)).map(|pod| pod.uid.as_str()).collect();
        let uncounted = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let mut record = Record::default();
        for (uids, kept, count) in [
            (uncounted.succeeded, &mut record.succeeded, &mut status.succeeded),
            (uncounted.failed, &mut record.failed, &mut status.failed),
        ] {
            let (still, gone): (Vec<String>, Vec<String>) =
                uids.into_iter().flatten().partition(|uid| held.contains(uid.as_str()));
            *kept = still;
            if !gone.is_empty() {
                let gone = i32::try_from(gone.len()).unwrap_or(i32::MAX);
                *count = Some(count.unwrap_or(0).saturating_add(gone));
            }
        }
        for pod in self.owned.iter().filter(|pod| is_tracked(pod)) {
            if !self.may_go(pod, finish) {
                continue;
            }
            self.record_end(&mut record, pod, finish);
            record.released.push(pod.clone());
            if record.indexes.len() + record.succeeded.len() + record.failed.len() >= UNCOUNTED_PODS_MAX {
                record.full = true;
                break;
            }
        }
        record
    }

    /// A pod whose outcome is known, unless its failure count is still to be handed to its replacement.
    fn may_go(&self, pod: &PodView, finish: Option<&Finish>) -> bool {
        if self.is_deleting() || finish.is_some() || pod.phase == "Succeeded" {
            return true;
        }
        let waits = |index: i64| self.replaced.get(&index).is_some_and(|last| last.uid == pod.uid);
        self.has_failed(pod) && !super::facts(pod).index.is_some_and(waits)
    }

    fn record_end(&self, record: &mut Record, pod: &PodView, finish: Option<&Finish>) {
        let index = self.index(pod);
        if pod.phase == "Succeeded" && !self.uncounted_failed.contains(&pod.uid) {
            if self.is_indexed() {
                // The index itself keeps it from being counted twice.
                record.indexes.extend(index.filter(|index| !self.counted_indexes.contains(*index)));
            } else if !self.uncounted_succeeded.contains(&pod.uid) {
                record.succeeded.push(pod.uid.clone());
            }
            return;
        }
        // When the Job fails, whatever did not end by itself counts as failed.
        let failed = self.has_failed(pod) || finish.is_some_and(|finish| !finish.success);
        let valid = !self.is_indexed() || index.is_some();
        if failed && valid && !self.uncounted_failed.contains(&pod.uid) && !self.judge(pod).ignored {
            record.failed.push(pod.uid.clone());
        }
    }

    fn write_record(&self, status: &mut JobStatus, record: &Record) {
        let list = |uids: &Vec<String>| (!uids.is_empty()).then(|| uids.clone());
        status.uncounted_terminated_pods =
            Some(UncountedTerminatedPods { succeeded: list(&record.succeeded), failed: list(&record.failed) });
        if !self.is_indexed() {
            return;
        }
        let succeeded = self.succeeded_of(record);
        status.succeeded = i32::try_from(succeeded.len()).ok().filter(|count| *count > 0);
        status.completed_indexes = Some(succeeded.to_string()).filter(|text| !text.is_empty());
        status.failed_indexes = self.failed_indexes.as_ref().map(ToString::to_string);
    }

    fn succeeded_of(&self, record: &Record) -> Indexes {
        self.counted_indexes.union(&record.indexes.iter().copied().collect())
    }

    /// The Job is over: its last condition and the event that says so.
    fn end(&self, plan: &mut Plan, status: &mut JobStatus, finish: &Finish) -> Note {
        let about = self.about();
        if !finish.success {
            self.push_condition(status, "Failed", finish);
            return Note { about, warning: true, reason: reason(&finish.reason), message: finish.message.clone() };
        }
        self.push_condition(status, "Complete", finish);
        status.completion_time = Some(seconds(self.now));
        let succeeded = i64::from(status.succeeded.unwrap_or(0));
        if self.spec.completions.is_some_and(|completions| succeeded > i64::from(completions)) {
            let why = "Too many succeeded pods running after completion count reached";
            plan.notes.push(Note::warning(&about, "TooManySucceededPods", why));
        }
        Note::normal(&about, "Completed", "Job completed")
    }

    fn push_condition(&self, status: &mut JobStatus, kind: &str, finish: &Finish) {
        self.set_condition(status, kind, "True", &finish.reason, &finish.message);
    }

    /// Whether anything changed; a condition that was never there does not become False.
    fn set_condition(&self, status: &mut JobStatus, kind: &str, value: &str, reason: &str, message: &str) -> bool {
        let now = seconds(self.now);
        let condition = JobCondition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(now.clone()),
            last_transition_time: Some(now),
        };
        let conditions = status.conditions.get_or_insert_default();
        match conditions.iter_mut().find(|known| known.type_ == kind) {
            Some(known) => {
                let same = (&known.status, &known.reason, &known.message)
                    == (&condition.status, &condition.reason, &condition.message);
                if !same {
                    *known = condition;
                }
                !same
            }
            None if value == "False" => {
                if conditions.is_empty() {
                    status.conditions = None;
                }
                false
            }
            None => {
                conditions.push(condition);
                true
            }
        }
    }
}

/// The event of a failed Job has the reason of its condition.
fn reason(of_condition: &str) -> &'static str {
    const REASONS: [&str; 5] =
        ["PodFailurePolicy", "BackoffLimitExceeded", "DeadlineExceeded", "MaxFailedIndexesExceeded", "FailedIndexes"];
    // A decision that another controller stored may have a reason of its own.
    REASONS.into_iter().find(|known| *known == of_condition).unwrap_or("Failed")
}

//! What whoever runs a Job may say of it: a status that has ended does not go back, and agrees with itself.

use std::collections::HashSet;

use meta::{FieldError, FieldErrors, FieldPath, time};
use serde_json::Value;

use super::indexes;
use super::job_rules::is_indexed;
use crate::json::{flag, has, int, list, text};
use crate::rules;

fn holds(job: &Value, kind: &str) -> bool {
    list(job, "status.conditions").iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn is_finished(job: &Value) -> bool {
    holds(job, "Complete") || holds(job, "Failed")
}

/// New and old, and what changed between them: a rule that was broken before does not stop other changes.
struct Change<'a> {
    new: &'a Value,
    old: &'a Value,
    path: FieldPath,
    errors: FieldErrors,
}

pub fn validate(new: &Value, old: &Value) -> FieldErrors {
    let mut change = Change { new, old, path: FieldPath::new("status"), errors: Vec::new() };
    change.numbers();
    change.uncounted();
    change.ends();
    change.finished();
    change.indexes();
    change.counters();
    change.times();
    change.errors
}

impl Change<'_> {
    fn changed(&self, field: &str) -> bool {
        self.new["status"][field] != self.old["status"][field]
    }

    fn turned(&self, state: impl Fn(&Value) -> bool) -> bool {
        state(self.new) != state(self.old)
    }

    fn is(&self, kind: &str) -> bool {
        holds(self.new, kind)
    }

    fn conditions(&mut self, why: &str) {
        self.errors.push(FieldError::invalid_unshown(&self.path.child("conditions"), why));
    }

    fn invalid(&mut self, field: &str, why: &str) {
        let shown = self.new["status"][field].clone();
        self.errors.push(FieldError::invalid(&self.path.child(field), shown, why));
    }

    fn numbers(&mut self) {
        for key in ["active", "succeeded", "failed", "ready", "terminating"] {
            rules::not_negative(&mut self.errors, &self.new["status"], &self.path, key);
        }
        let more_ready = int(self.new, "status.ready") > int(self.new, "status.active");
        if more_ready && (self.changed("ready") || self.changed("active")) {
            self.invalid("ready", "cannot set more ready pods than active");
        }
    }

    fn uncounted(&mut self) {
        let path = self.path.child("uncountedTerminatedPods");
        let mut seen = HashSet::new();
        for kind in ["succeeded", "failed"] {
            let path = path.child(kind);
            for (number, uid) in list(&self.new["status"]["uncountedTerminatedPods"], kind).iter().enumerate() {
                let uid = uid.as_str().unwrap_or_default();
                if uid.is_empty() {
                    self.errors.push(FieldError::invalid(&path.index(number), uid, "must not be empty"));
                } else if !seen.insert(uid) {
                    self.errors.push(FieldError::duplicate(&path.index(number), uid));
                }
            }
        }
    }

    /// Which conditions go together.
    fn ends(&mut self) {
        let turned = |kind: &'static str| self.turned(|job| holds(job, kind));
        let (complete, failed) = (turned("Complete"), turned("Failed"));
        let (target, criteria) = (turned("FailureTarget"), turned("SuccessCriteriaMet"));
        if (complete || failed) && self.is("Complete") && self.is("Failed") {
            self.conditions("cannot set Complete=True and Failed=true conditions");
        }
        if (complete || target) && self.is("Complete") && self.is("FailureTarget") {
            self.conditions("cannot set Complete=True and FailureTarget=true conditions");
        }
        if (failed || self.changed("failedIndexes")) && self.is("Failed") && !self.is("FailureTarget") {
            self.conditions("cannot set Failed=True condition without the FailureTarget=true condition");
        }
        if (complete || criteria) && self.is("Complete") && !self.is("SuccessCriteriaMet") {
            self.conditions("cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
        }
        if self.is("SuccessCriteriaMet") && self.is("Failed") {
            self.conditions("cannot set SuccessCriteriaMet=True and Failed=true conditions");
        }
        if self.is("SuccessCriteriaMet") && self.is("FailureTarget") {
            self.conditions("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
        }
        if has(self.new, "spec.successPolicy") && self.is("Complete") && !self.is("SuccessCriteriaMet") {
            self.conditions("cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True");
        }
        for kind in ["Failed", "Complete", "FailureTarget"] {
            if holds(self.old, kind) && !self.is(kind) {
                self.conditions(&format!("cannot disable the terminal {kind}=True condition"));
            }
        }
        if holds(self.old, "SuccessCriteriaMet") && !self.is("SuccessCriteriaMet") {
            self.conditions("cannot disable the SuccessCriteriaMet=True condition");
        }
        if holds(self.old, "Complete") && !holds(self.old, "SuccessCriteriaMet") && self.is("SuccessCriteriaMet") {
            self.conditions("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions");
        }
    }

    /// A finished Job has nothing left to do.
    fn finished(&mut self) {
        if !is_finished(self.new) {
            return;
        }
        let turned = self.turned(is_finished);
        if (turned || self.changed("active")) && int(self.new, "status.active") > 0 {
            self.invalid("active", "active>0 is invalid for finished job");
        }
        let empty = flag(self.new, "spec.suspend") && self.new["spec"]["completions"] == 0;
        if (turned || self.changed("startTime")) && !empty && !has(self.new, "status.startTime") {
            let why = "startTime is required for finished job";
            self.errors.push(FieldError::required(&self.path.child("startTime"), why));
        }
        let uncounted = &self.new["status"]["uncountedTerminatedPods"];
        let left = list(uncounted, "succeeded").len() + list(uncounted, "failed").len();
        if (turned || self.changed("uncountedTerminatedPods")) && left > 0 {
            self.invalid("uncountedTerminatedPods", "must be empty for finished job");
        }
        if (turned || self.changed("terminating")) && int(self.new, "status.terminating") > 0 {
            self.invalid("terminating", "terminating>0 is invalid for finished job");
        }
    }

    fn indexes(&mut self) {
        let (spec, status) = (&self.new["spec"], &self.new["status"]);
        let completions = spec["completions"].as_i64();
        let (completed, failed) = (text(status, "completedIndexes"), status["failedIndexes"].as_str());
        let (completed_changed, failed_changed) = (self.changed("completedIndexes"), self.changed("failedIndexes"));
        let per_index = has(spec, "backoffLimitPerIndex");
        let check = |text: &str| completions.and_then(|completions| indexes::count(text, completions).err());
        if let Some(why) = check(completed).filter(|_| completed_changed) {
            self.invalid("completedIndexes", &format!("error parsing completedIndexes: {why}"));
        }
        if let Some(why) = failed.and_then(check).filter(|_| failed_changed && per_index) {
            self.invalid("failedIndexes", &format!("error parsing failedIndexes: {why}"));
        }
        if completed_changed && !completed.is_empty() && !is_indexed(spec) {
            self.invalid("completedIndexes", "cannot set non-empty completedIndexes when non-indexed completion mode");
        }
        if failed_changed && failed.is_some() && !per_index {
            self.invalid("failedIndexes", "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
        }
        if (completed_changed || failed_changed)
            && let (Some(completions), Some(failed)) = (completions, failed)
            && let Some(index) = indexes::overlap(completed, failed, completions)
        {
            let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
            self.invalid("failedIndexes", &why);
        }
    }

    fn counters(&mut self) {
        let fell = |field: &str| int(self.new, &format!("status.{field}")) < int(self.old, &format!("status.{field}"));
        let (failed, succeeded) = (fell("failed"), fell("succeeded"));
        if failed {
            self.invalid("failed", "cannot decrease the failed counter");
        }
        let spec = &self.new["spec"];
        let elastic = is_indexed(spec) && spec["completions"] == spec["parallelism"];
        if succeeded && !elastic {
            self.invalid("succeeded", "cannot decrease the succeeded counter");
        }
    }

    fn times(&mut self) {
        let at = |job: &Value, field: &str| time::parse_seconds(text(&job["status"], field));
        let (start, end) = (at(self.new, "startTime"), at(self.new, "completionTime"));
        let complete = self.is("Complete");
        let (start_changed, end_changed) = (self.changed("startTime"), self.changed("completionTime"));
        let turned = self.turned(|job| holds(job, "Complete"));
        if (turned || end_changed) && end.is_some() && !complete {
            self.invalid("completionTime", "cannot set completionTime when there is no Complete=True condition");
        }
        if (turned || end_changed) && end.is_none() && complete {
            let why = "completionTime is required for Complete jobs";
            self.errors.push(FieldError::required(&self.path.child("completionTime"), why));
        }
        if (start_changed || end_changed) && start.zip(end).is_some_and(|(start, end)| end < start) {
            self.invalid("completionTime", "must be equal to or after `startTime`");
        }
        if end_changed && end.is_some() && has(self.old, "status.completionTime") {
            self.invalid("completionTime", "field is immutable");
        }
        let resumed = |condition: &Value| condition["type"] == "Suspended" && condition["status"] == "False";
        let resuming = holds(self.old, "Suspended") && list(self.new, "status.conditions").iter().any(resumed);
        let runs = !flag(self.new, "spec.suspend");
        if start_changed && has(self.old, "status.startTime") && runs && !resuming {
            self.invalid("startTime", "field is immutable for unsuspended job once set");
        }
    }
}

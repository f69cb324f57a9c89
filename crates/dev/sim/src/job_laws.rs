//! What must be true of Jobs and CronJobs: each pod counts once, each index fails as often as it may.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use reconcile::job::is_finished;

use crate::api::Event;
use crate::object::Object;

/// How pods end, as `status` names the counts.
const COUNTS: [&str; 2] = ["succeeded", "failed"];

/// What was seen of one Job.
#[derive(Default)]
struct Book {
    name: String,
    indexed: bool,
    /// The status holds the end, or the Job goes: nobody counts any more.
    over: bool,
    /// The Job is told to go: what it did not count by then, nobody counts.
    gone: bool,
    /// Pods that the status ever recorded, by how they ended.
    recorded: [BTreeSet<String>; 2],
    /// Pods that ended while the Job counted them.
    ended: [BTreeSet<String>; 2],
    /// Pods that failed, and the indexes whose pods succeeded.
    failures: BTreeMap<i64, BTreeSet<String>>,
    successes: BTreeSet<i64>,
    /// Pods that failed since the Job was last suspended: with its pods it loses what they knew of failures.
    recent: BTreeMap<i64, usize>,
    /// The last status.
    completed: BTreeSet<i64>,
    failed: BTreeSet<i64>,
    limit: Option<usize>,
    /// Pods that are told to go count as failed, unless they succeed.
    counts_leaving: bool,
}

/// By the uid of the Job.
#[derive(Default)]
pub struct JobBooks {
    books: BTreeMap<String, Book>,
    /// Unfinished Jobs by the CronJob that forbids a second one.
    running: BTreeMap<String, BTreeSet<String>>,
}

fn is_tracked(pod: &Object) -> bool {
    let finalizers = pod.pod().map(|pod| pod.finalizers.as_slice()).unwrap_or_default();
    finalizers.iter().any(|finalizer| finalizer == reconcile::job::TRACKING)
}

/// The indexes of the compressed text form.
pub fn indexes(text: &str) -> BTreeSet<i64> {
    let parse = |text: &str| text.parse::<i64>().unwrap_or(-1);
    let intervals = text.split(',').filter(|interval| !interval.is_empty());
    intervals
        .flat_map(|interval| {
            let (first, last) = interval.split_once('-').unwrap_or((interval, interval));
            parse(first)..=parse(last)
        })
        .collect()
}

impl JobBooks {
    pub fn judge(&mut self, event: &Event) -> Result<(), String> {
        match event.name.0 {
            "Pod" => self.pod(event),
            "Job" => {
                self.one_at_a_time(event)?;
                self.job(event)
            }
            _ => Ok(()),
        }
    }

    fn pod(&mut self, event: &Event) -> Result<(), String> {
        let pods = [&event.new, &event.old].map(|side| side.as_ref().filter(|pod| is_tracked(pod)));
        if let Some(pod) = pods[0]
            && let Some(book) = pod.owner_of("Job").and_then(|job| self.books.get_mut(&job.uid))
        {
            book.pod_is(pod)?;
        }
        let ends = |pod: &&Arc<Object>| pod.pod().is_some_and(|pod| pod.is_finished());
        let (Some(old), Some(new)) = (pods[1], event.new.as_ref().filter(ends)) else { return Ok(()) };
        if is_tracked(new) || new.owner() != old.owner() {
            return Ok(());
        }
        let Some(book) = old.owner().and_then(|job| self.books.get(job)).filter(|book| !book.over) else {
            return Ok(());
        };
        let index = new.pod().and_then(|pod| pod.job.as_ref()?.index);
        let completed = index.is_some_and(|index| book.completed.contains(&index));
        if !completed && !book.recorded.iter().any(|known| known.contains(new.uid())) {
            return Err(format!("{} was freed before it was counted", event.name.1));
        }
        Ok(())
    }

    fn job(&mut self, event: &Event) -> Result<(), String> {
        let Some(new) = &event.new else {
            if let Some(book) = event.old.as_ref().and_then(|old| self.books.get_mut(old.uid())) {
                (book.over, book.gone) = (true, true);
            }
            return Ok(());
        };
        let book = self.books.entry(new.uid().to_owned()).or_default();
        book.name = event.name.1.clone();
        book.counts(event.old.as_deref(), new)?;
        book.gone = new.is_deleting();
        book.over = new.is_deleting() || new.job().is_some_and(|job| is_finished(job));
        Ok(())
    }

    /// A CronJob that forbids it has no second Job that runs.
    fn one_at_a_time(&mut self, event: &Event) -> Result<(), String> {
        let Some(job) = event.new.as_ref().or(event.old.as_ref()) else { return Ok(()) };
        let Some(owner) = job.owner_of("CronJob").filter(|owner| !owner.name.ends_with("allow")) else {
            return Ok(());
        };
        let running = self.running.entry(owner.uid.clone()).or_default();
        let runs =
            event.new.as_ref().is_some_and(|job| !job.is_deleting() && job.job().is_some_and(|job| !is_finished(job)));
        if !runs {
            running.remove(job.uid());
            return Ok(());
        }
        running.insert(job.uid().to_owned());
        if running.len() > 1 {
            return Err(format!("{} Jobs of CronJob {} run at once", running.len(), owner.name));
        }
        Ok(())
    }

    pub fn all_counted(&self) -> Result<(), String> {
        self.books.values().try_for_each(Book::all_counted)
    }
}

impl Book {
    fn pod_is(&mut self, pod: &Object) -> Result<(), String> {
        let leaves = |view: &reconcile::PodView| view.deletion.is_some() && self.counts_leaving;
        let Some(view) = pod.pod().filter(|view| !self.over && (view.is_finished() || leaves(view))) else {
            return Ok(());
        };
        let failed = usize::from(view.phase != "Succeeded");
        if view.is_finished() {
            self.ended[failed].insert(pod.uid().to_owned());
        }
        let Some(index) = view.job.as_ref().and_then(|facts| facts.index) else { return Ok(()) };
        if failed == 0 {
            self.successes.insert(index);
            return Ok(());
        }
        let recent = self.recent.entry(index).or_default();
        *recent += usize::from(self.failures.entry(index).or_default().insert(pod.uid().to_owned()));
        match self.limit {
            Some(limit) if *recent > limit + 1 => {
                Err(format!("index {index} of {} failed {recent} times, {limit} retries are meant", self.name))
            }
            _ => Ok(()),
        }
    }

    /// Each pod is recorded once, and the counts are those of the recorded pods.
    fn counts(&mut self, old: Option<&Object>, new: &Object) -> Result<(), String> {
        let uncounted = |job: Option<&Object>, kind: &str| -> BTreeSet<String> {
            let list = job.map(|job| &job.value["status"]["uncountedTerminatedPods"][kind]);
            let list = list.and_then(|list| list.as_array()).into_iter().flatten();
            list.filter_map(|uid| uid.as_str().map(str::to_owned)).collect()
        };
        self.indexed = new.text("spec/completionMode") == "Indexed";
        if new.value["spec"]["suspend"] == true {
            self.recent.clear();
        }
        self.counts_leaving = new.text("spec/podReplacementPolicy") != "Failed";
        self.limit = new.value["spec"]["backoffLimitPerIndex"].as_u64().and_then(|limit| usize::try_from(limit).ok());
        for (index, kind) in COUNTS.iter().enumerate() {
            let (before, after) = (uncounted(old, kind), uncounted(Some(new), kind));
            for uid in after.difference(&before) {
                if self.recorded.iter().any(|known| known.contains(uid)) {
                    return Err(format!("{uid} of {} is counted twice", self.name));
                }
                self.recorded[index].insert(uid.clone());
            }
            let said = new.number(&format!("status/{kind}"));
            let counted = self.recorded[index].len() - after.len();
            if said != counted as u64 && !(self.indexed && index == 0) {
                return Err(format!("{} says {said} {kind}, {counted} were recorded", self.name));
            }
        }
        if self.indexed { self.indexes(new) } else { Ok(()) }
    }

    /// Indexes are completed by a success, failed by failures, never both, and stay what they are.
    fn indexes(&mut self, job: &Object) -> Result<(), String> {
        let completed = indexes(job.text("status/completedIndexes"));
        let failed = indexes(job.text("status/failedIndexes"));
        let name = &self.name;
        if job.number("status/succeeded") != completed.len() as u64 {
            return Err(format!("{name} says {} succeeded, indexes {completed:?}", job.number("status/succeeded")));
        }
        if let Some(index) = completed.difference(&self.successes).next() {
            return Err(format!("index {index} of {name} is complete, none of its pods succeeded"));
        }
        if let Some(index) = completed.intersection(&failed).next() {
            return Err(format!("index {index} of {name} is complete and failed"));
        }
        if !self.completed.is_subset(&completed) || !self.failed.is_subset(&failed) {
            return Err(format!("{name} lost indexes: completed {completed:?}, failed {failed:?}"));
        }
        let limit = self.limit.unwrap_or(usize::MAX - 1);
        let early = failed.iter().find(|index| self.failures.get(index).is_none_or(|pods| pods.len() <= limit));
        if let Some(index) = early {
            return Err(format!("index {index} of {name} is failed before its {limit} retries are over"));
        }
        (self.completed, self.failed) = (completed, failed);
        Ok(())
    }

    fn all_counted(&self) -> Result<(), String> {
        if self.gone {
            return Ok(());
        }
        for ((kind, ended), recorded) in COUNTS.iter().zip(&self.ended).zip(&self.recorded) {
            if self.indexed && *kind == "succeeded" {
                continue;
            }
            if let Some(uid) = ended.difference(recorded).next() {
                return Err(format!("{uid} of {} ended and was not counted as {kind}", self.name));
            }
        }
        match self.successes.difference(&self.completed).next() {
            Some(index) if !self.failed.contains(index) => {
                Err(format!("index {index} of {} succeeded and is not complete", self.name))
            }
            _ => Ok(()),
        }
    }
}

//! Jobs: what a reconcile knows of a Job and its pods, and how the Job stands.
//!
//! A reconcile has two parts, both decided from what is stored and nothing else, so that it may end after any write.
//! [`State::manage`] adopts, deletes and creates pods. [`State::track`] counts those that ended, one step at a time:
//! their uids are written to `status.uncountedTerminatedPods` (indexes to `completedIndexes`) first, then their
//! finalizers are removed, then the uids become counts. A pod cannot go before its finalizer does, and a uid is
//! counted only when its finalizer is seen to be gone: none is lost, none counts twice.

pub mod backoff;
pub mod facts;
pub mod indexes;
mod manage;
mod new_pod;
pub mod orphans;
mod policies;
mod track;
pub mod ttl;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};

use self::backoff::Backoff;
use self::facts::JobFacts;
use self::indexes::Indexes;
use crate::PodView;
use crate::conditions::seconds;
use crate::ownership::{Owner, reference, selector_of};
use crate::plan::{JOBS, Op, PODS};

/// Keeps a pod until its Job has counted it.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// `spec.managedBy` of Jobs that this controller cares for; an absent one means the same.
const OWN_NAME: &str = "kubernetes.io/job-controller";
/// Uids that a status holds at once; more wait for the next round (upstream: 500).
pub const UNCOUNTED_PODS_MAX: usize = 500;
/// Pods made or removed in one reconcile (upstream: 500).
pub const BURST_PODS_MAX: usize = 500;

/// How a Job is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finish {
    success: bool,
    reason: String,
    message: String,
    /// The interim condition (SuccessCriteriaMet, FailureTarget) is stored: the decision is made.
    decided: bool,
}

impl Finish {
    fn new(success: bool, reason: &str, message: impl Into<String>) -> Self {
        Self { success, reason: reason.to_owned(), message: message.into(), decided: false }
    }

    fn of(condition: &JobCondition, success: bool) -> Self {
        let reason = condition.reason.clone().unwrap_or_default();
        Self { success, reason, message: condition.message.clone().unwrap_or_default(), decided: true }
    }
}

/// A Job and its pods at one moment.
pub struct State<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    status: JobStatus,
    now: Timestamp,
    owned: Vec<Arc<PodView>>,
    claims: Vec<Op>,
    /// Owned pods that neither ended nor are told to.
    active: Vec<Arc<PodView>>,
    uncounted_succeeded: HashSet<String>,
    uncounted_failed: HashSet<String>,
    /// Successes, counted or not yet.
    succeeded: i64,
    backoff: Backoff,
    /// Indexes that the status has, and those with what succeeded since.
    counted_indexes: Indexes,
    succeeded_indexes: Indexes,
    /// With a backoff limit per index: the indexes that failed.
    failed_indexes: Option<Indexes>,
    /// With a backoff limit per index: the last failed pod of each index that waits for its replacement.
    replaced: HashMap<i64, Arc<PodView>>,
    finish: Option<Finish>,
}

/// Whether the Job is over: nothing is to be done for it any more.
pub fn is_finished(job: &Job) -> bool {
    finished_condition(job).is_some()
}

/// The condition that says how the Job ended.
pub fn finished_condition(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| (c.type_ == "Complete" || c.type_ == "Failed") && c.status == "True")
}

/// Whether another controller cares for this Job.
pub fn is_managed_elsewhere(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != OWN_NAME)
}

fn is_tracked(pod: &PodView) -> bool {
    pod.finalizers.iter().any(|finalizer| finalizer == TRACKING)
}

fn facts(pod: &PodView) -> &JobFacts {
    static NONE: JobFacts = JobFacts {
        index: None,
        failures: 0,
        ignored_failures: 0,
        finished: None,
        exits: Vec::new(),
        conditions: Vec::new(),
        restarts: 0,
    };
    pod.job.as_deref().unwrap_or(&NONE)
}

fn ends(pods: &[&Arc<PodView>]) -> Vec<Timestamp> {
    pods.iter().filter_map(|pod| facts(pod).finished).collect()
}

impl<'a> State<'a> {
    /// `candidates` are the pods that the Job controls and those of its namespace that nobody does; `backoff` is what
    /// the last reconcile left, `None` if there was none in this process.
    pub fn new(
        job: &'a Job,
        spec: &'a JobSpec,
        candidates: &[Arc<PodView>],
        backoff: Option<Backoff>,
        now: Timestamp,
    ) -> Self {
        let selector = spec.selector.as_ref().and_then(selector_of);
        let (mut owned, claims) = Owner::new(JOBS, &job.metadata, selector).claim(PODS, candidates);
        owned.sort_by(|a, b| (facts(a).index, a.created, &a.name).cmp(&(facts(b).index, b.created, &b.name)));
        let status = job.status.clone().unwrap_or_default();
        let uids = |list: Option<&Vec<String>>| list.into_iter().flatten().cloned().collect::<HashSet<_>>();
        let uncounted = status.uncounted_terminated_pods.as_ref();
        let active = owned.iter().filter(|pod| pod.is_active()).cloned().collect();
        let mut state = Self {
            claims: claims.into_iter().map(|op| with_finalizer(op, candidates)).collect(),
            uncounted_succeeded: uids(uncounted.and_then(|uncounted| uncounted.succeeded.as_ref())),
            uncounted_failed: uids(uncounted.and_then(|uncounted| uncounted.failed.as_ref())),
            succeeded: 0,
            backoff: Backoff::default(),
            counted_indexes: Indexes::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            replaced: HashMap::new(),
            finish: None,
            job,
            spec,
            status,
            now: seconds(now).0,
            owned,
            active,
        };
        state.count(backoff);
        state.finish = state.find_finish();
        state
    }

    /// Successes, failures and the wait that follows from them.
    fn count(&mut self, backoff: Option<Backoff>) {
        let succeeded = self.fresh(&self.uncounted_succeeded, |pod| pod.phase == "Succeeded");
        let failed = self.fresh(&self.uncounted_failed, |pod| self.has_failed(pod));
        let known = backoff.unwrap_or_else(|| self.backoff_of_counted());
        let (backoff, new) = (known.with(&ends(&succeeded), &ends(&failed)), as_count(succeeded.len()));
        self.succeeded = i64::from(self.status.succeeded.unwrap_or(0)) + new + as_count(self.uncounted_succeeded.len());
        self.backoff = backoff;
        if !self.is_indexed() {
            return;
        }
        self.counted_indexes =
            Indexes::parse(self.status.completed_indexes.as_deref().unwrap_or(""), self.completions());
        let new = self.owned.iter().filter(|pod| pod.phase == "Succeeded" && is_tracked(pod));
        let new: Indexes = new.filter_map(|pod| self.index(pod)).collect();
        self.succeeded_indexes = self.counted_indexes.union(&new);
        self.succeeded = self.succeeded_indexes.len();
        if self.spec.backoff_limit_per_index.is_some() {
            let known = Indexes::parse(self.status.failed_indexes.as_deref().unwrap_or(""), self.completions());
            let failed = self.owned.iter().filter(|pod| is_tracked(pod) && self.fails_index(pod));
            let failed: Indexes = failed.filter_map(|pod| self.index(pod)).collect();
            // Pods that go because the end was decided do not fail their indexes.
            self.failed_indexes = Some(if self.is_decided() { known } else { known.union(&failed) });
            self.replaced = self.find_replaced();
        }
    }

    /// After a restart: what the counted pods that are still there tell.
    fn backoff_of_counted(&self) -> Backoff {
        let counted = |pod: &&Arc<PodView>| {
            let recorded = self.uncounted_failed.contains(&pod.uid) || self.uncounted_succeeded.contains(&pod.uid);
            pod.is_finished() && (recorded || !is_tracked(pod))
        };
        let (succeeded, failed): (Vec<_>, Vec<_>) =
            self.owned.iter().filter(counted).partition(|pod| pod.phase == "Succeeded");
        Backoff::default().with(&ends(&succeeded), &ends(&failed))
    }

    /// Pods that ended and are in no count yet.
    fn fresh(&self, recorded: &HashSet<String>, ended: impl Fn(&PodView) -> bool) -> Vec<&Arc<PodView>> {
        let fresh = |pod: &&Arc<PodView>| {
            let valid = !self.is_indexed() || self.index(pod).is_some();
            is_tracked(pod) && !recorded.contains(&pod.uid) && valid && ended(pod)
        };
        self.owned.iter().filter(fresh).collect()
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn is_deleting(&self) -> bool {
        self.job.metadata.deletion_timestamp.is_some()
    }

    /// What an Indexed Job always has; of others it is not asked.
    fn completions(&self) -> i64 {
        i64::from(self.spec.completions.unwrap_or(0))
    }

    /// The pod's index, if the Job has it.
    fn index(&self, pod: &PodView) -> Option<i64> {
        facts(pod).index.filter(|index| *index < self.completions())
    }

    /// Pods that are about to end are waited for before they are replaced.
    fn replaces_failed_only(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed") || self.spec.pod_failure_policy.is_some()
    }

    /// A pod that goes without having succeeded counts as failed: it may never get to say so.
    fn has_failed(&self, pod: &PodView) -> bool {
        let lost = pod.deletion.is_some() && pod.phase != "Succeeded";
        pod.phase == "Failed" || (lost && !self.replaces_failed_only())
    }

    fn judge(&self, pod: &PodView) -> policies::Verdict {
        policies::judge(self.spec.pod_failure_policy.as_ref(), pod)
    }

    fn fails_index(&self, pod: &PodView) -> bool {
        if !self.has_failed(pod) {
            return false;
        }
        let verdict = self.judge(pod);
        let limit = self.spec.backoff_limit_per_index.unwrap_or(i32::MAX);
        verdict.fails_index || (!verdict.ignored && facts(pod).failures >= limit)
    }

    fn find_replaced(&self) -> HashMap<i64, Arc<PodView>> {
        let active: HashSet<i64> = self.active.iter().filter_map(|pod| facts(pod).index).collect();
        let mut replaced: HashMap<i64, Arc<PodView>> = HashMap::new();
        for pod in self.owned.iter().filter(|pod| is_tracked(pod) && self.has_failed(pod)) {
            let Some(index) = self.index(pod) else { continue };
            let settled = self.succeeded_indexes.contains(index)
                || self.failed_indexes.as_ref().is_some_and(|failed| failed.contains(index));
            if settled || active.contains(&index) {
                continue;
            }
            let all = |pod: &PodView| facts(pod).failures.saturating_add(facts(pod).ignored_failures);
            let later = replaced
                .get(&index)
                .is_none_or(|known| all(known) <= all(pod) && facts(known).finished <= facts(pod).finished);
            if later {
                replaced.insert(index, pod.clone());
            }
        }
        replaced
    }

    fn condition(&self, kind: &str) -> Option<&JobCondition> {
        let conditions = self.status.conditions.iter().flatten();
        conditions.into_iter().find(|condition| condition.type_ == kind && condition.status == "True")
    }

    fn is_decided(&self) -> bool {
        self.condition("SuccessCriteriaMet").is_some() || self.condition("FailureTarget").is_some()
    }

    /// How the Job ends: as was decided before, else by failure, else by success.
    fn find_finish(&self) -> Option<Finish> {
        if let Some(condition) = self.condition("SuccessCriteriaMet") {
            return Some(Finish::of(condition, true));
        }
        if let Some(condition) = self.condition("FailureTarget") {
            return Some(Finish::of(condition, false));
        }
        self.failure().or_else(|| self.success())
    }

    fn failure(&self) -> Option<Finish> {
        let failed = self.owned.iter().filter(|pod| self.has_failed(pod));
        if let Some(why) = failed.filter_map(|pod| self.judge(pod).fails_job).next() {
            return Some(Finish::new(false, "PodFailurePolicy", why));
        }
        if self.failures() > i64::from(self.spec.backoff_limit.unwrap_or(6)) || self.restarts_exceed() {
            let why = "Job has reached the specified backoff limit";
            return Some(Finish::new(false, "BackoffLimitExceeded", why));
        }
        if self.until_deadline().is_some_and(|left| left <= 0) {
            return Some(Finish::new(false, "DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        let failed = self.failed_indexes.as_ref()?.len();
        if self.spec.max_failed_indexes.is_some_and(|max| failed > i64::from(max)) {
            let why = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Finish::new(false, "MaxFailedIndexesExceeded", why));
        }
        let all = failed + self.succeeded_indexes.len() >= self.completions();
        (failed > 0 && all).then(|| Finish::new(false, "FailedIndexes", "Job has failed indexes"))
    }

    /// Failures that count, counted or not yet.
    fn failures(&self) -> i64 {
        let new = self.fresh(&self.uncounted_failed, |pod| self.has_failed(pod));
        let new = new.iter().filter(|pod| !self.judge(pod).ignored).count();
        i64::from(self.status.failed.unwrap_or(0)) + as_count(new + self.uncounted_failed.len())
    }

    /// Pods that restart their containers themselves fail the Job by the number of restarts.
    fn restarts_exceed(&self) -> bool {
        let spec = self.spec.template.spec.as_ref();
        if spec.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let live = self.owned.iter().filter(|pod| matches!(pod.phase, "Running" | "Pending"));
        let restarts: i64 = live.map(|pod| i64::from(facts(pod).restarts)).sum();
        match self.spec.backoff_limit.unwrap_or(6) {
            0 => restarts > 0,
            limit => restarts >= i64::from(limit),
        }
    }

    /// Seconds until the active deadline, if it runs.
    fn until_deadline(&self) -> Option<i64> {
        let deadline = self.spec.active_deadline_seconds.filter(|_| !self.is_suspended())?;
        let start = self.status.start_time.as_ref().map_or(self.now, |time| time.0);
        Some(deadline.saturating_sub(self.now.as_second() - start.as_second()))
    }

    fn success(&self) -> Option<Finish> {
        if self.is_indexed() {
            let policy = self.spec.success_policy.as_ref();
            if let Some(why) = policies::success(policy, self.completions(), &self.succeeded_indexes) {
                return Some(Finish::new(true, "SuccessPolicy", why));
            }
        }
        let enough = match self.spec.completions {
            Some(completions) => self.succeeded >= i64::from(completions),
            None => self.succeeded > 0,
        };
        let why = "Reached expected number of succeeded pods";
        (enough && self.active.is_empty()).then(|| Finish::new(true, "CompletionsReached", why))
    }

    fn namespace(&self) -> &str {
        self.job.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.job.metadata.name.as_deref().unwrap_or_default()
    }

    fn about(&self) -> k8s_openapi::api::core::v1::ObjectReference {
        reference(JOBS, &self.job.metadata)
    }
}

fn as_count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An adopted pod gets the finalizer with its owner, a released one loses both.
fn with_finalizer(mut op: Op, pods: &[Arc<PodView>]) -> Op {
    let Op::Patch { name, body, .. } = &mut op else { return op };
    let Some(pod) = pods.iter().find(|pod| pod.name == *name) else { return op };
    let adopts = pod.controller().is_none();
    let mut finalizers = pod.finalizers.clone();
    finalizers.retain(|finalizer| finalizer != TRACKING);
    if adopts {
        finalizers.push(TRACKING.to_owned());
    }
    body["metadata"]["finalizers"] = finalizers.into();
    body["metadata"]["resourceVersion"] = pod.resource_version.as_str().into();
    op
}

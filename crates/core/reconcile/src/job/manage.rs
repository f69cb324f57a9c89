//! Which pods a Job adopts, removes and makes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::indexes::Indexes;
use super::{BURST_PODS_MAX, State, as_count, backoff, facts, is_tracked};
use crate::PodView;
use crate::plan::{Note, Op, PODS, Plan, Step};

/// Replacements are not looked for more often than this.
const WAIT_MIN: Duration = Duration::from_secs(1);

impl State<'_> {
    /// The next writes on pods; empty when nothing is to be done before something else happens.
    pub fn manage(&self) -> Plan {
        let mut plan = Plan::default();
        if !self.claims.is_empty() {
            // An adoption changes what is owned: look again when the cache shows it.
            plan.steps.extend(self.claims.iter().cloned().map(Step::from));
            return plan;
        }
        if let Some(left) = self.until_deadline().and_then(|left| u64::try_from(left).ok()).filter(|left| *left > 0) {
            plan.requeue(Duration::from_secs(left));
        }
        if let Some(finish) = &self.finish {
            if !finish.decided {
                // What is stored does not change its mind when the pods that now go look like failures.
                return plan;
            }
            // They keep their finalizers: what was running when the Job ended is counted.
            plan.batch = self.active.iter().take(BURST_PODS_MAX).map(|pod| self.delete(pod)).collect();
            return plan;
        }
        if self.is_deleting() {
            return plan;
        }
        let active = as_count(self.active.len());
        let wanted = if self.is_suspended() { 0 } else { self.wanted(active) };
        let surplus = usize::try_from(active - wanted).unwrap_or(0);
        let mut doomed = if self.is_suspended() { self.active.clone() } else { self.surplus(surplus) };
        if !doomed.is_empty() {
            doomed.truncate(BURST_PODS_MAX);
            plan.batch = self.remove_uncounted(&doomed);
        } else if !self.is_suspended() {
            let leaving = if self.replaces_failed_only() { as_count(self.terminating().count()) } else { 0 };
            self.create(&mut plan, usize::try_from(wanted - leaving - active).unwrap_or(0));
        }
        plan
    }

    /// Pods that should run now.
    fn wanted(&self, active: i64) -> i64 {
        let parallelism = i64::from(self.spec.parallelism.unwrap_or(1));
        match self.spec.completions {
            // Whoever works on a common queue decides himself when it is done: after the first success none is added.
            None if self.succeeded > 0 => active,
            None => parallelism,
            Some(completions) => (i64::from(completions) - self.succeeded).clamp(0, parallelism),
        }
    }

    /// Told to end and still there.
    pub(super) fn terminating(&self) -> impl Iterator<Item = &Arc<PodView>> {
        self.owned.iter().filter(|pod| pod.deletion.is_some() && !pod.is_finished())
    }

    /// At least so many active pods that may go: pods without a valid index and second pods of an index always.
    fn surplus(&self, at_least: usize) -> Vec<Arc<PodView>> {
        let (mut doomed, mut kept) = (Vec::new(), self.active.clone());
        if self.is_indexed() {
            let mut by_index: BTreeMap<i64, Vec<Arc<PodView>>> = BTreeMap::new();
            for pod in kept.drain(..) {
                match self.index(&pod) {
                    Some(index) => by_index.entry(index).or_default().push(pod),
                    None => doomed.push(pod),
                }
            }
            for mut pods in by_index.into_values() {
                pods.sort_by_cached_key(|pod| worth(pod));
                kept.extend(pods.pop());
                doomed.append(&mut pods);
            }
        }
        kept.sort_by_cached_key(|pod| worth(pod));
        let missing = at_least.saturating_sub(doomed.len());
        doomed.extend(kept.into_iter().take(missing));
        doomed
    }

    fn delete(&self, pod: &PodView) -> Step {
        let (namespace, name, uid) = (pod.namespace.clone(), pod.name.clone(), Some(pod.uid.clone()));
        let done = Note::normal(&self.about(), "SuccessfulDelete", format!("Deleted pod: {name}"));
        let failed = Note::warning(&self.about(), "FailedDelete", "Error deleting: {error}");
        Step::from(Op::Delete { resource: PODS, namespace, name, uid, grace: None }).on_success(done).on_failure(failed)
    }

    /// Pods that go because there are too many are not counted: first they lose their finalizers, then they go. One that
    /// ended since it was seen keeps its own: it counts.
    fn remove_uncounted(&self, doomed: &[Arc<PodView>]) -> Vec<Step> {
        let tracked: Vec<Step> = doomed.iter().filter(|pod| is_tracked(pod)).map(|pod| release_as_seen(pod)).collect();
        if tracked.is_empty() { doomed.iter().map(|pod| self.delete(pod)).collect() } else { tracked }
    }

    fn create(&self, plan: &mut Plan, missing: usize) {
        let missing = missing.min(BURST_PODS_MAX);
        if missing == 0 {
            return;
        }
        let per_index = self.spec.backoff_limit_per_index.is_some();
        let wait = if per_index { Duration::ZERO } else { self.backoff.remaining(self.now) };
        if !wait.is_zero() {
            plan.requeue(wait.max(WAIT_MIN));
            return;
        }
        let indexes: Vec<Option<i64>> = if self.is_indexed() {
            let pending = self.pending_indexes(missing);
            let (now, later): (Vec<i64>, Vec<i64>) =
                pending.into_iter().partition(|index| self.index_wait(*index).is_zero());
            if let Some(wait) = later.into_iter().map(|index| self.index_wait(index)).min() {
                plan.requeue(wait.max(WAIT_MIN));
            }
            now.into_iter().map(Some).collect()
        } else {
            vec![None; missing]
        };
        let about = self.about();
        let create = |index| {
            let (namespace, object) = (self.namespace().to_owned(), self.new_pod(index));
            Step::from(Op::Create { resource: PODS, namespace, object })
                .on_success(Note::normal(&about, "SuccessfulCreate", "Created pod: {name}"))
                .on_failure(Note::warning(&about, "FailedCreate", "Error creating: {error}"))
        };
        plan.batch = indexes.into_iter().map(create).collect();
    }

    /// The lowest indexes that have neither a pod nor an outcome.
    fn pending_indexes(&self, count: usize) -> Vec<i64> {
        let leaving: Vec<&Arc<PodView>> =
            if self.replaces_failed_only() { self.terminating().collect() } else { Vec::new() };
        let taken: HashSet<i64> = self.active.iter().chain(leaving).filter_map(|pod| facts(pod).index).collect();
        let mut settled = self.succeeded_indexes.union(&taken.into_iter().collect::<Indexes>());
        if let Some(failed) = &self.failed_indexes {
            settled = settled.union(failed);
        }
        settled.first_missing(count, self.completions())
    }

    /// How long an index waits for its next pod.
    fn index_wait(&self, index: i64) -> Duration {
        let Some(pod) = self.replaced.get(&index) else { return Duration::ZERO };
        let failures = facts(pod).failures.saturating_add(facts(pod).ignored_failures).saturating_add(1);
        let failures = u32::try_from(failures).unwrap_or(1);
        facts(pod).finished.map_or(Duration::ZERO, |last| backoff::remaining(failures, last, self.now))
    }
}

/// The write that lets a pod go: its finalizer is removed, nobody else's.
pub(super) fn release(pod: &PodView) -> Step {
    super::orphans::untrack(pod).into()
}

/// As [`release`], unless the pod changed since.
fn release_as_seen(pod: &PodView) -> Step {
    let mut op = super::orphans::untrack(pod);
    if let Op::Patch { body, .. } = &mut op {
        body["metadata"]["resourceVersion"] = pod.resource_version.as_str().into();
    }
    op.into()
}

/// Least first: uncounted already, not assigned, Pending, not ready, ready for a short time, restarting often, young.
fn worth(pod: &PodView) -> (bool, bool, u8, bool, Reverse<i64>, Reverse<i32>, Reverse<i64>, String) {
    let phase = match pod.phase {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let second = |time: Option<jiff::Timestamp>| Reverse(time.map_or(i64::MAX, jiff::Timestamp::as_second));
    let ready_since = if pod.ready { second(pod.ready_since) } else { Reverse(0) };
    let assigned = !pod.node.is_empty();
    let uid = pod.uid.clone();
    (is_tracked(pod), assigned, phase, pod.ready, ready_since, Reverse(pod.restarts), second(pod.created), uid)
}

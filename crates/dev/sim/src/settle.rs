//! After the faults: everything comes to rest, and at rest everything is as it was asked for.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::autoscaler::NAME;
use crate::job_laws::indexes;
use crate::nodes::FAILING_INDEX;
use crate::object::Object;
use crate::quota::all_stated;
use crate::roles::{ROLES, Role};
use crate::scale_laws;
use crate::world::World;

/// Rounds without a rest are an endless story.
const ROUNDS_MAX: usize = 2_000;
/// Reconciles of one controller in one round: more is a spin.
const RECONCILES_MAX: usize = 2_000;
/// So long nothing is written; longer than any timer that runs for as long as the cluster does.
const REST: SignedDuration = SignedDuration::from_secs(310);
/// A CronJob of every minute has to have started something within.
const CRON_ROUNDS_MAX: usize = 2_000;

impl World {
    /// Lets everybody do everything until nobody has anything to do or to wait for.
    pub fn settle(&mut self) -> Result<(), String> {
        let mut still_since = self.api.now;
        for _ in 0..ROUNDS_MAX {
            if self.round()? {
                still_since = self.api.now;
                continue;
            }
            if self.manager.next_timer(false).is_none() && self.api.now.duration_since(still_since) >= REST {
                let unfinished = self.manager.unfinished(&self.api);
                return unfinished.map_or(Ok(()), Err);
            }
            self.wait();
        }
        let busy: Vec<&Role> = ROLES.iter().filter(|role| self.manager.due(**role) > 0).collect();
        let leaving = self.api.all().filter(|(.., object)| object.is_deleting());
        let leaving: Vec<String> = leaving.map(|(kind, name, _)| format!("{kind} {name}")).collect();
        Err(format!("never comes to rest: {busy:?} are due, {leaving:?} are to go"))
    }

    /// Whether anybody did anything, or has something under way; if so, a second passed.
    fn round(&mut self) -> Result<bool, String> {
        let before = self.api.revision();
        self.controllers_round()?;
        self.others_round()?;
        let jobs_run = self.machines.iter().any(|machine| machine.has_jobs(&self.api));
        let busy = self.api.revision() != before || jobs_run || !self.manager.is_idle();
        if busy {
            self.pass(SignedDuration::from_secs(1));
        }
        Ok(busy)
    }

    /// Until the next timer.
    fn wait(&mut self) {
        let timers = [self.manager.next_timer(true), self.binder.next_timer(), self.autoscaler.next_timer()];
        let next: Option<Timestamp> = timers.into_iter().flatten().min();
        let wait = next.map_or(REST, |next| next.duration_since(self.api.now));
        self.pass(wait.clamp(SignedDuration::from_millis(20), REST));
    }

    /// Time passes at rest: nothing is written, and only those look again who watch the time itself.
    pub fn rest(&mut self, time: SignedDuration) -> Result<(), String> {
        let (end, revision, handled) = (self.api.now + time, self.api.revision(), self.manager.handled.clone());
        while self.api.now < end {
            self.round()?;
            self.wait();
        }
        if self.api.revision() != revision {
            return Err(format!("{} writes at rest", self.api.revision() - revision));
        }
        let count = |known: &std::collections::BTreeMap<Role, usize>, role| known.get(role).copied().unwrap_or(0);
        let woken = ROLES
            .iter()
            .find(|role| !role.has_endless_timers() && count(&self.manager.handled, role) > count(&handled, role));
        woken.map_or(Ok(()), |role| Err(format!("{role:?} is busy at rest")))
    }

    /// The CronJob starts something for the time that it is, whatever the clocks did.
    pub fn cron_jobs_go_on(&mut self) -> Result<(), String> {
        for _ in 0..CRON_ROUNDS_MAX {
            let wall = self.api.wall();
            let goes_on = self.api.list("CronJob").all(|cron_job| {
                let last = cron_job.text("status/lastScheduleTime").parse::<Timestamp>();
                last.is_ok_and(|last| wall.duration_since(last) < SignedDuration::from_secs(120))
            });
            if goes_on {
                return Ok(());
            }
            if !self.round()? {
                self.wait();
            }
        }
        let status = self.api.list("CronJob").map(|cron_job| cron_job.value["status"].to_string());
        Err(format!("at {} CronJobs start nothing any more: {}", self.api.wall(), status.collect::<String>()))
    }

    fn controllers_round(&mut self) -> Result<(), String> {
        for role in ROLES {
            self.finish(role)?;
            self.manager.see_all(&self.api);
            for reconciles in 0.. {
                if self.manager.due(role) == 0 {
                    break;
                }
                if reconciles == RECONCILES_MAX {
                    return Err(format!("{role:?} spins"));
                }
                self.manager.begin(role, 0, &self.api);
                self.finish(role)?;
                self.manager.see_all(&self.api);
            }
        }
        Ok(())
    }

    fn finish(&mut self, role: Role) -> Result<(), String> {
        while self.manager.is_busy(role) {
            let said = self.manager.step(role, &mut self.api, &mut self.faults);
            self.tell(said)?;
        }
        Ok(())
    }

    fn others_round(&mut self) -> Result<(), String> {
        while self.garbage.observe(&self.api) {}
        while !self.garbage.is_idle() {
            let said = self.garbage.step(&mut self.api, &mut self.faults);
            self.tell(said)?;
            while self.garbage.observe(&self.api) {}
        }
        while self.binder.observe(&self.api) {}
        loop {
            let said = self.binder.step(&mut self.api, &mut self.faults);
            if said.is_none() && self.binder.is_idle() {
                break;
            }
            self.tell(said)?;
        }
        self.autoscaler.see(&self.api);
        while let Some(said) = self.autoscaler.step(&mut self.api, &mut self.faults) {
            self.tell(Some(said))?;
        }
        let luck = self.luck();
        for index in 0..self.machines.len() {
            for pod in self.machines[index].pods(&self.api) {
                let said = self.machines[index].sync(&pod, &mut self.api, &mut self.dice, luck);
                self.tell(said)?;
            }
        }
        Ok(())
    }

    /// Everything is as it was asked for, and nothing is left over.
    pub fn at_rest(&self) -> Result<(), String> {
        let elastic = self.api.get("Deployment", NAME).map(|_| ("Deployment", NAME));
        let sets = [("Deployment", "web"), ("StatefulSet", "set"), ("ReplicaSet", "guarded")];
        for (kind, name) in sets.into_iter().chain(elastic) {
            let wanted = self.number(kind, name, "/spec/replicas");
            for field in ["replicas", "readyReplicas", "availableReplicas"] {
                self.expect(kind, name, &format!("/status/{field}"), wanted)?;
            }
            if kind != "ReplicaSet" {
                self.expect(kind, name, "/status/updatedReplicas", wanted)?;
            }
            // Who failed stays to be looked at, as upstream's do, and counts for nothing.
            let counts =
                |pod: &&Arc<Object>| pod.pod().is_some_and(|pod| pod.is_active()) && self.descends(pod, kind, name);
            let owned = self.api.list("Pod").filter(counts).count() as u64;
            if owned != wanted {
                return Err(format!("{kind} {name} has {owned} pods, wanted {wanted}"));
            }
        }
        for field in ["desiredNumberScheduled", "currentNumberScheduled", "numberAvailable", "updatedNumberScheduled"] {
            self.expect("DaemonSet", "agent", &format!("/status/{field}"), self.machines.len() as u64)?;
        }
        self.expect("Job", "job", "/status/succeeded", self.number("Job", "job", "/spec/completions"))?;
        self.indexed_job_is_over()?;
        if self.api.get("ReplicaSet", "vip").is_some() {
            self.expect(
                "ReplicaSet",
                "vip",
                "/status/readyReplicas",
                self.number("ReplicaSet", "vip", "/spec/replicas"),
            )?;
        }
        all_stated(&self.api)?;
        scale_laws::fits(&self.api, self.autoscaler.load)?;
        let healthy = self.number("ReplicaSet", "guarded", "/spec/replicas");
        self.expect("PodDisruptionBudget", "guard", "/status/currentHealthy", healthy)?;
        self.nothing_is_left()
    }

    /// After the end of the namespace: nothing of it is left, and nothing runs.
    pub fn is_empty(&self) -> Result<(), String> {
        crate::namespace::is_gone(&self.api)?;
        self.nothing_is_left()
    }

    /// Each index is completed or failed; the one that never succeeds is failed.
    fn indexed_job_is_over(&self) -> Result<(), String> {
        let Some(job) = self.api.get("Job", "indexed") else { return Err("the Indexed Job is gone".to_owned()) };
        let (completed, failed) = (job.text("status/completedIndexes"), job.text("status/failedIndexes"));
        let (done, lost) = (indexes(completed), indexes(failed));
        let all = (done.len() + lost.len()) as u64 == job.number("spec/completions");
        let over = job.job().is_some_and(|job| reconcile::job::is_finished(job));
        if over && all && lost.contains(&FAILING_INDEX) {
            return Ok(());
        }
        Err(format!("the Indexed Job ends: {over}, completed {completed}, failed {failed}"))
    }

    fn expect(&self, kind: &'static str, name: &str, path: &str, wanted: u64) -> Result<(), String> {
        let found = self.number(kind, name, path);
        let why = || format!("{kind} {name} {path} is {found} at rest, wanted {wanted}");
        if found == wanted { Ok(()) } else { Err(why()) }
    }

    /// Whether the object's owner, or the owner of that, is the named one.
    fn descends(&self, object: &Object, kind: &'static str, name: &str) -> bool {
        let Some(top) = self.api.get(kind, name) else { return false };
        let Some(owner) = object.owner() else { return false };
        let between = self.api.list("ReplicaSet").find(|set| set.uid() == owner);
        owner == top.uid() || between.is_some_and(|set| set.owner() == Some(top.uid()))
    }

    fn nothing_is_left(&self) -> Result<(), String> {
        let known: BTreeSet<&str> = self.api.all().map(|(.., object)| object.uid()).collect();
        for (kind, name, object) in self.api.all() {
            if object.is_deleting() {
                return Err(format!("{kind} {name} never goes"));
            }
            if object.owner().is_some_and(|owner| !known.contains(owner)) {
                return Err(format!("{kind} {name} is an orphan"));
            }
        }
        for machine in &self.machines {
            let stray = machine.running.iter().find(|(_, uid)| !known.contains(uid.as_str()));
            if let Some((name, _)) = stray {
                return Err(format!("{name} still runs on {}", machine.name));
            }
        }
        Ok(())
    }
}

//! After the faults: everything comes to rest, and at rest everything is as it was asked for.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::manager::ROLES;
use crate::object::Object;
use crate::world::World;

/// Rounds without a rest are an endless story.
const ROUNDS_MAX: usize = 600;
/// Rounds in which nothing is written, each waiting twice as long as the last: every timer is over.
const QUIET_ROUNDS: u32 = 11;

impl World {
    /// Lets everybody do everything until nobody has anything to do.
    pub fn settle(&mut self) -> Result<(), String> {
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            let before = self.api.revision();
            self.controllers_round()?;
            self.others_round()?;
            if self.api.revision() == before {
                if quiet == QUIET_ROUNDS {
                    return Ok(());
                }
                self.tick(1 << quiet);
                quiet += 1;
            } else {
                quiet = 0;
                self.tick(1);
            }
        }
        Err("never comes to rest".to_owned())
    }

    fn controllers_round(&mut self) -> Result<(), String> {
        for role in ROLES {
            self.finish(role)?;
            self.manager.caches.reach_all(&self.api);
            for key in self.manager.keys(role) {
                self.manager.caches.reach_all(&self.api);
                self.manager.begin(role, &key, &self.api);
                self.finish(role)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, role: crate::manager::Role) -> Result<(), String> {
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
        let luck = self.luck();
        for index in 0..self.machines.len() {
            let pods: Vec<Arc<Object>> = self.api.list("Pod").cloned().collect();
            let machine = &mut self.machines[index];
            let name = machine.name.clone();
            machine.running.retain(|name, uid| self.api.get("Pod", name).is_some_and(|pod| pod.uid() == uid));
            for pod in pods.iter().filter(|pod| pod.pod().is_some_and(|pod| pod.node == name)) {
                let said = self.machines[index].sync(pod, &mut self.api, &mut self.dice, luck);
                self.tell(said)?;
            }
        }
        Ok(())
    }

    /// Everything is as it was asked for, and nothing is left over.
    pub fn at_rest(&self) -> Result<(), String> {
        for (kind, name) in [("Deployment", "web"), ("StatefulSet", "set"), ("ReplicaSet", "guarded")] {
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
        let healthy = self.number("ReplicaSet", "guarded", "/spec/replicas");
        self.expect("PodDisruptionBudget", "guard", "/status/currentHealthy", healthy)?;
        self.nothing_is_left()
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
        let known: BTreeSet<&str> = self.api.objects.values().map(|object| object.uid()).collect();
        for ((kind, name), object) in &self.api.objects {
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

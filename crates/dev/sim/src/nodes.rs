//! Simulated nodes: machines that run what the API binds to them, report it, go silent, and return.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use crate::api::Api;
use crate::dice::Dice;
use crate::object::Object;

/// Pods of this index of an Indexed Job never succeed.
pub const FAILING_INDEX: i64 = 1;

pub struct Machine {
    pub name: String,
    pub alive: bool,
    /// What really runs: pod name to uid.
    pub running: BTreeMap<String, String>,
    pub sign: Timestamp,
    cpu: String,
}

/// What may happen to a container besides starting and stopping.
#[derive(Clone, Copy)]
pub struct Luck {
    /// Pods of Jobs that end fail once in so many.
    pub failures: usize,
    /// Running pods become unready or end.
    pub accidents: bool,
}

impl Machine {
    pub fn new(name: &str, cpu: &str, api: &mut Api) -> Self {
        let machine =
            Self { name: name.to_owned(), alive: true, running: BTreeMap::new(), sign: api.now, cpu: cpu.to_owned() };
        machine.register(api);
        machine
    }

    fn register(&self, api: &mut Api) {
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": self.name }, "spec": {},
            "status": { "allocatable": { "cpu": self.cpu, "memory": "8Gi", "pods": "20" },
                "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": api.time() }] } });
        // A node that is known keeps its object.
        let _ = api.create("Node", node);
    }

    /// The machine is there again; `lost` tells whether its containers are not.
    pub fn restart(&mut self, lost: bool, api: &mut Api) {
        (self.alive, self.sign) = (true, api.now);
        if lost {
            self.running.clear();
        }
        self.register(api);
        self.report(api);
    }

    /// A heartbeat, and that all is well.
    pub fn report(&mut self, api: &mut Api) {
        self.sign = api.now;
        if api.get("Node", &self.name).is_some_and(|node| !is_ready(node)) {
            let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": api.time() });
            let _ = api.patch("Node", &self.name, true, true, &json!({ "status": { "conditions": [ready] } }));
        }
    }

    /// What the kubelet does next about one of its pods; what it was, in words.
    pub fn step(&mut self, api: &mut Api, dice: &mut Dice, luck: Luck) -> Option<String> {
        if !self.alive {
            return None;
        }
        self.report(api);
        let pods = self.pods(api);
        let pod = dice.pick(&pods)?;
        self.sync(pod, api, dice, luck)
    }

    /// The pods that are bound here; containers of others end.
    pub fn pods(&mut self, api: &Api) -> Vec<Arc<Object>> {
        self.running.retain(|name, uid| api.get("Pod", name).is_some_and(|pod| pod.uid() == uid));
        let bound = |pod: &&Arc<Object>| pod.pod().is_some_and(|pod| pod.node == self.name);
        api.list("Pod").filter(bound).cloned().collect()
    }

    /// Whether pods of Jobs run here, which end by themselves.
    pub fn has_jobs(&self, api: &Api) -> bool {
        let of_job =
            |name: &String| api.get("Pod", name).and_then(|pod| pod.pod()).is_some_and(|pod| pod.job.is_some());
        self.alive && self.running.keys().any(of_job)
    }

    /// Brings one pod on: starts it, reports it, ends it.
    pub fn sync(&mut self, pod: &Arc<Object>, api: &mut Api, dice: &mut Dice, luck: Luck) -> Option<String> {
        let view = pod.pod()?;
        let (name, uid) = (view.name.clone(), view.uid.clone());
        let is_job = view.job.is_some();
        let runs = self.running.get(&name) == Some(&uid);
        let said = if view.deletion.is_some() && !view.is_finished() && (runs || view.ready || is_job) {
            self.running.remove(&name);
            let phase = if is_job { "Failed" } else { "Running" };
            status(api, pod, phase, false, is_job.then_some(137));
            "stops"
        } else if view.deletion.is_some() {
            self.running.remove(&name);
            if pod.value["metadata"]["deletionGracePeriodSeconds"] == 0 {
                return None;
            }
            let _ = api.delete("Pod", &name, (Some(&uid), None), Some(0), "");
            "is gone"
        } else if view.is_finished() && view.ready {
            self.running.remove(&name);
            status(api, pod, view.phase, false, None);
            "is over"
        } else if view.is_finished() {
            self.running.remove(&name);
            return None;
        } else if !runs || !view.ready {
            self.running.insert(name.clone(), uid);
            status(api, pod, "Running", true, None);
            "runs"
        } else if is_job && dice.once_in(3) {
            self.running.remove(&name);
            let index = view.job.as_ref().and_then(|facts| facts.index);
            let failed = index == Some(FAILING_INDEX) || dice.once_in(luck.failures);
            status(api, pod, if failed { "Failed" } else { "Succeeded" }, false, Some(i32::from(failed)));
            if failed { "failed" } else { "succeeded" }
        } else if luck.accidents && dice.once_in(12) {
            status(api, pod, "Running", false, None);
            "is unready"
        } else if luck.accidents && dice.once_in(24) {
            self.running.remove(&name);
            status(api, pod, "Failed", false, Some(1));
            "broke"
        } else {
            return None;
        };
        Some(format!("{} {name} {said}", self.name))
    }
}

/// Whether the node's last word was that all is well.
pub fn is_ready(node: &Object) -> bool {
    node.value["status"]["conditions"][0]["status"] == "True"
}

fn status(api: &mut Api, pod: &Object, phase: &str, ready: bool, code: Option<i32>) {
    let now = api.time();
    let word = if ready { "True" } else { "False" };
    let known = pod.value["status"]["conditions"].as_array();
    let known = known.and_then(|list| list.iter().find(|condition| condition["type"] == "Ready"));
    let since = known.filter(|known| known["status"] == word).map(|known| known["lastTransitionTime"].clone());
    let ready = json!({ "type": "Ready", "status": word, "lastTransitionTime": since.unwrap_or_else(|| now.clone()) });
    let mut status = json!({ "phase": phase, "conditions": [ready] });
    if let Some(code) = code {
        let state = json!({ "terminated": { "exitCode": code, "finishedAt": now } });
        status["containerStatuses"] = json!([{ "name": "c", "image": "i", "imageID": "i", "ready": false,
            "restartCount": 0, "state": state }]);
    }
    let body = json!({ "metadata": { "uid": pod.uid() }, "status": status });
    let _ = api.patch("Pod", pod.name(), true, true, &body);
}

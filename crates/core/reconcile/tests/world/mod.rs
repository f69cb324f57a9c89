//! A cluster small enough for a model: one Deployment, its ReplicaSets and pods, on a clock and dice of the test's own.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::plan::{DEPLOYMENTS, Op, PODS, Plan, REPLICA_SETS, merge, to_value};
use reconcile::replicaset::Survey;
use reconcile::{PodView, deployment, replicaset};
use serde_json::{Value, json};

pub use crate::dice::Dice;

pub struct World {
    pub deployment: Deployment,
    pub sets: Vec<ReplicaSet>,
    pub pods: Vec<PodView>,
    pub now: Timestamp,
    pub events: Vec<String>,
    /// Pods of these images never get ready.
    pub broken: Vec<String>,
    count: i64,
}

pub fn template(image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": image }] } })
}

fn set_named<'a>(sets: &'a mut [ReplicaSet], name: &str) -> Option<&'a mut ReplicaSet> {
    sets.iter_mut().find(|set| set.metadata.name.as_deref() == Some(name))
}

impl World {
    /// A Deployment `web` of image `i:1`; `spec` is merged over its defaults.
    pub fn new(spec: Value) -> Self {
        let mut whole = json!({
            "metadata": { "name": "web", "namespace": "a", "uid": "d", "generation": 1, "resourceVersion": "1" },
            "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "web" } }, "template": template("i:1"),
                "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600 },
        });
        merge(&mut whole["spec"], &spec);
        let (sets, pods, events, broken) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let now = Timestamp::from_second(1_000_000).unwrap();
        Self { deployment: serde_json::from_value(whole).unwrap(), sets, pods, now, events, broken, count: 1 }
    }

    fn next(&mut self) -> String {
        self.count += 1;
        self.count.to_string()
    }

    pub fn tick(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// The user's edit of the Deployment.
    pub fn edit(&mut self, patch: Value) {
        let mut value = to_value(&self.deployment);
        merge(&mut value, &json!({ "spec": patch }));
        let changed = value["spec"] != to_value(&self.deployment)["spec"];
        self.deployment = serde_json::from_value(value).unwrap();
        *self.deployment.metadata.generation.as_mut().unwrap() += i64::from(changed);
    }

    pub fn plan_deployment(&self) -> Plan {
        let sets: Vec<_> = self.sets.iter().cloned().map(Arc::new).collect();
        let pods: Vec<_> = self.pods.iter().cloned().map(Arc::new).collect();
        deployment::plan(&self.deployment, &sets, &pods, self.now)
    }

    pub fn reconcile_deployment(&mut self) -> bool {
        let plan = self.plan_deployment();
        self.apply(&plan)
    }

    /// One round of the ReplicaSet controller for one set.
    pub fn reconcile_set(&mut self, index: usize) -> bool {
        let Some(set) = self.sets.get(index).cloned() else { return false };
        let owned = || self.owned(&set).cloned().map(Arc::new).collect();
        let plan = replicaset::plan(REPLICA_SETS, &set, owned, &self.survey(&set), HashMap::new, self.now);
        let changed = self.apply(&plan);
        let status = replicaset::status(REPLICA_SETS, &set, &self.survey(&set), None, self.now);
        self.apply(&status) || changed
    }

    fn owned(&self, set: &ReplicaSet) -> impl Iterator<Item = &PodView> {
        let uid = set.metadata.uid.clone();
        self.pods.iter().filter(move |pod| pod.controller().map(|owner| &owner.uid) == uid.as_ref())
    }

    fn survey(&self, set: &ReplicaSet) -> Survey {
        let orphans = self.pods.iter().filter(|pod| pod.controller().is_none());
        replicaset::survey(REPLICA_SETS, set, self.owned(set), orphans, self.now)
    }

    /// True when anything was written.
    fn apply(&mut self, plan: &Plan) -> bool {
        for step in plan.steps.iter().chain(&plan.batch) {
            if let Some(taken) = self.write(&step.op) {
                assert!(taken, "stale or missing: {:?}", step.op);
                // The shell does what follows a taken name.
                return true;
            }
            if let Some(note) = &step.done {
                self.events.push(format!("{}: {}", note.reason, note.message));
            }
        }
        !plan.is_empty()
    }

    /// `None` when done; `Some(true)` when the name of a new ReplicaSet was taken.
    fn write(&mut self, op: &Op) -> Option<bool> {
        let (version, now) = (self.next(), Time(self.now));
        match op {
            Op::Create { resource: REPLICA_SETS, object, .. } => {
                let mut set: ReplicaSet = serde_json::from_value(object.clone()).unwrap();
                if let Some(live) = set_named(&mut self.sets, set.metadata.name.as_deref().unwrap()) {
                    let status = deployment::on_name_taken(&self.deployment, live).unwrap();
                    self.merge_deployment(&json!({ "status": status }));
                    return Some(true);
                }
                set.metadata.uid = Some(format!("rs{version}"));
                set.metadata.generation = Some(1);
                (set.metadata.resource_version, set.metadata.creation_timestamp) = (Some(version), Some(now));
                self.sets.push(set);
            }
            Op::Create { resource: PODS, object, .. } => {
                let mut pod: Pod = serde_json::from_value(object.clone()).unwrap();
                pod.metadata.name = Some(format!("pod{version}"));
                pod.metadata.uid = Some(format!("pod{version}"));
                pod.metadata.creation_timestamp = Some(now);
                self.pods.push(PodView { phase: "Pending", node: "n".into(), ..PodView::from_pod(pod) });
            }
            Op::Delete { resource: PODS, name, .. } => {
                let now = self.now;
                self.pods.iter_mut().find(|pod| pod.name == *name)?.deletion = Some(now);
            }
            Op::Delete { resource: REPLICA_SETS, name, .. } => {
                self.sets.retain(|set| set.metadata.name.as_ref() != Some(name));
            }
            Op::Patch { resource: DEPLOYMENTS, body, .. } => self.merge_deployment(body),
            Op::Patch { resource: REPLICA_SETS, name, body, .. } => {
                let Some(set) = set_named(&mut self.sets, name) else { return Some(false) };
                let known = &body["metadata"]["resourceVersion"];
                if !known.is_null() && *known != json!(set.metadata.resource_version) {
                    return Some(false);
                }
                let mut value = to_value(set);
                merge(&mut value, body);
                let respecified = value["spec"] != to_value(set)["spec"];
                *set = serde_json::from_value(value).unwrap();
                *set.metadata.generation.as_mut().unwrap() += i64::from(respecified);
                set.metadata.resource_version = Some(version);
            }
            other => panic!("not a write of these controllers: {other:?}"),
        }
        None
    }

    fn merge_deployment(&mut self, body: &Value) {
        let mut value = to_value(&self.deployment);
        merge(&mut value, body);
        self.deployment = serde_json::from_value(value).unwrap();
    }

    pub fn image(&self, pod: &PodView) -> String {
        let owner = &pod.controller().unwrap().uid;
        let set = self.sets.iter().find(|set| set.metadata.uid.as_ref() == Some(owner));
        set.map_or_else(String::new, image_of)
    }

    /// The pod gets ready, unless its image is broken.
    pub fn start_pod(&mut self, index: usize) {
        let Some(pod) = self.pods.get(index) else { return };
        if pod.deletion.is_some() || pod.ready || self.broken.contains(&self.image(pod)) {
            return;
        }
        let now = self.now;
        let pod = &mut self.pods[index];
        (pod.phase, pod.ready, pod.has_ready, pod.ready_since) = ("Running", true, true, Some(now));
    }

    pub fn fail_pod(&mut self, index: usize) {
        let now = self.now;
        if let Some(pod) = self.pods.get_mut(index) {
            (pod.ready, pod.ready_since) = (false, Some(now));
        }
    }

    /// A pod that was told to end has ended.
    pub fn end_pod(&mut self, index: usize) {
        if self.pods.get(index).is_some_and(|pod| pod.deletion.is_some()) {
            self.pods.remove(index);
        }
    }

    pub fn active(&self) -> usize {
        self.pods.iter().filter(|pod| pod.is_active()).count()
    }

    pub fn available(&self, min_ready: i32) -> usize {
        self.pods.iter().filter(|pod| pod.is_active() && pod.is_available(min_ready, self.now)).count()
    }

    /// Lets everything happen until nothing does; panics when it never ends.
    pub fn settle(&mut self, why: &str) {
        for _ in 0..400 {
            let mut changed = self.reconcile_deployment();
            for index in 0..self.sets.len() {
                changed |= self.reconcile_set(index);
            }
            for index in (0..self.pods.len()).rev() {
                let before = self.pods[index].clone();
                self.start_pod(index);
                self.end_pod(index);
                changed |= self.pods.get(index) != Some(&before);
            }
            self.tick(1);
            let waiting = self.pods.iter().any(|pod| {
                let min_ready = self.deployment.spec.as_ref().unwrap().min_ready_seconds.unwrap_or(0);
                pod.ready && pod.is_active() && !pod.is_available(min_ready, self.now)
            });
            if !changed && !waiting {
                return;
            }
        }
        panic!("{why}: never settles: {:#?}", self.plan_deployment());
    }

    /// `image xREPLICAS rREVISION` of each ReplicaSet, oldest first.
    pub fn summary(&self) -> Vec<String> {
        let line = |set: &ReplicaSet| {
            let revision = &set.metadata.annotations.as_ref().unwrap()[deployment::REVISION];
            format!("{} x{} r{revision}", image_of(set), set.spec.as_ref().unwrap().replicas.unwrap())
        };
        self.sets.iter().map(line).collect()
    }

    /// `status reason` of one of the Deployment's conditions.
    pub fn condition(&self, kind: &str) -> String {
        let conditions = self.deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let found = conditions.into_iter().find(|condition| condition.type_ == kind);
        found.map_or_else(String::new, |c| format!("{} {}", c.status, c.reason.clone().unwrap_or_default()))
    }
}

pub fn image_of(set: &ReplicaSet) -> String {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref()?.spec.clone()).unwrap();
    template.containers[0].image.clone().unwrap()
}

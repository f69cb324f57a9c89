//! A cluster small enough for a model: one StatefulSet or DaemonSet with its revisions, pods, claims and nodes.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use reconcile::PodView;
use reconcile::plan::{CONTROLLER_REVISIONS, Note, Op, PERSISTENT_VOLUME_CLAIMS, PODS, Plan, merge, to_value};
use reconcile::revisions::{REVISION_LABEL, Revision, template_of};
use reconcile::statefulset::ClaimView;
use serde_json::{Value, json};

pub struct Cluster {
    pub set: Value,
    pub revisions: Vec<ControllerRevision>,
    pub pods: Vec<PodView>,
    pub claims: Vec<ClaimView>,
    pub nodes: Vec<Node>,
    pub now: Timestamp,
    /// What was written and told since the last look, in words.
    pub log: Vec<String>,
    /// Pods of these images never get ready.
    pub broken: Vec<String>,
    images: HashMap<String, String>,
    count: i64,
}

pub fn template(image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": image }] } })
}

impl Cluster {
    /// A set `web` of image `i:1`; `spec` is merged over it.
    pub fn new(kind: &str, spec: Value) -> Self {
        let mut set = json!({
            "apiVersion": "apps/v1", "kind": kind,
            "metadata": { "name": "web", "namespace": "a", "uid": "s", "generation": 1, "resourceVersion": "1" },
            "spec": { "selector": { "matchLabels": { "app": "web" } }, "template": template("i:1") },
            "status": {},
        });
        merge(&mut set["spec"], &spec);
        Self {
            set,
            revisions: Vec::new(),
            pods: Vec::new(),
            claims: Vec::new(),
            nodes: Vec::new(),
            now: Timestamp::from_second(1_000_000).unwrap(),
            log: Vec::new(),
            broken: Vec::new(),
            images: HashMap::new(),
            count: 1,
        }
    }

    pub fn set<T: serde::de::DeserializeOwned>(&self) -> T {
        let mut set = self.set.clone();
        if set["status"] == json!({}) {
            set.as_object_mut().unwrap().remove("status");
        }
        serde_json::from_value(set).unwrap()
    }

    pub fn revisions(&self) -> Vec<Revision> {
        self.revisions.iter().cloned().map(Arc::new).collect()
    }

    pub fn pods(&self) -> Vec<Arc<PodView>> {
        self.pods.iter().cloned().map(Arc::new).collect()
    }

    pub fn claims(&self) -> Vec<Arc<ClaimView>> {
        self.claims.iter().cloned().map(Arc::new).collect()
    }

    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.iter().cloned().map(Arc::new).collect()
    }

    pub fn tick(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// The user's edit of the set.
    pub fn edit(&mut self, patch: Value) {
        let before = self.set["spec"].clone();
        merge(&mut self.set["spec"], &patch);
        if self.set["spec"] != before {
            self.set["metadata"]["generation"] = (self.set["metadata"]["generation"].as_i64().unwrap() + 1).into();
        }
    }

    /// What was logged since the last call.
    pub fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// True when anything was written.
    pub fn apply(&mut self, plan: &Plan) -> bool {
        plan.notes.iter().for_each(|note| self.note(note, ""));
        let mut written = false;
        for step in plan.steps.iter().chain(&plan.batch) {
            match self.write(&step.op) {
                Ok(name) => {
                    written = true;
                    if let Some(note) = &step.done {
                        self.note(note, &name);
                    }
                }
                Err(taken) => panic!("{taken}: {:?}", step.op),
            }
        }
        written
    }

    fn note(&mut self, note: &Note, name: &str) {
        self.log.push(format!("{}: {}", note.reason, note.message.replace("{name}", name)));
    }

    fn next(&mut self) -> String {
        self.count += 1;
        self.count.to_string()
    }

    fn write(&mut self, op: &Op) -> Result<String, String> {
        let (version, now) = (self.next(), Some(Time(self.now)));
        match op {
            Op::Create { resource: PODS, object, .. } => {
                let mut pod: Pod = serde_json::from_value(object.clone()).unwrap();
                let prefix = pod.metadata.generate_name.clone();
                let name = pod.metadata.name.clone().unwrap_or_else(|| format!("{}{version}", prefix.unwrap()));
                if self.pods.iter().any(|pod| pod.name == name) {
                    return Err(format!("pod {name} is taken"));
                }
                (pod.metadata.name, pod.metadata.uid) = (Some(name.clone()), Some(format!("uid{version}")));
                (pod.metadata.namespace, pod.metadata.creation_timestamp) = (Some("a".into()), now);
                let image = object["spec"]["containers"][0]["image"].as_str().unwrap();
                self.images.insert(format!("uid{version}"), image.to_owned());
                self.pods.push(PodView { phase: "Pending", ..PodView::from_pod(pod) });
                return Ok(name);
            }
            Op::Create { resource: PERSISTENT_VOLUME_CLAIMS, object, .. } => {
                let mut claim: PersistentVolumeClaim = serde_json::from_value(object.clone()).unwrap();
                claim.metadata.uid = Some(format!("uid{version}"));
                self.claims.push(ClaimView::from_claim(claim));
            }
            Op::Create { resource: CONTROLLER_REVISIONS, object, .. } => {
                let mut revision: ControllerRevision = serde_json::from_value(object.clone()).unwrap();
                (revision.metadata.uid, revision.metadata.creation_timestamp) = (Some(format!("uid{version}")), now);
                self.revisions.push(revision);
            }
            Op::Delete { resource: PODS, name, .. } => {
                let now = self.now;
                self.pods.iter_mut().find(|pod| pod.name == *name).unwrap().deletion = Some(now);
            }
            Op::Delete { resource: CONTROLLER_REVISIONS, name, .. } => {
                self.revisions.retain(|revision| revision.metadata.name.as_ref() != Some(name));
            }
            Op::Patch { resource: PODS, name, body, .. } => {
                let pod = self.pods.iter_mut().find(|pod| pod.name == *name).unwrap();
                let mut meta = json!({ "labels": pod.labels, "ownerReferences": pod.owners });
                merge(&mut meta, &body["metadata"]);
                pod.labels = serde_json::from_value(meta["labels"].clone()).unwrap();
                pod.owners = serde_json::from_value::<Vec<OwnerReference>>(meta["ownerReferences"].clone()).unwrap();
            }
            Op::Patch { resource: PERSISTENT_VOLUME_CLAIMS, name, body, .. } => {
                let claim = self.claims.iter_mut().find(|claim| claim.name == *name).unwrap();
                claim.owners = serde_json::from_value(body["metadata"]["ownerReferences"].clone()).unwrap();
            }
            Op::Patch { resource: CONTROLLER_REVISIONS, name, body, .. } => {
                let found = |revision: &&mut ControllerRevision| revision.metadata.name.as_ref() == Some(name);
                let revision = self.revisions.iter_mut().find(found).unwrap();
                let mut value = to_value(revision);
                merge(&mut value, body);
                *revision = serde_json::from_value(value).unwrap();
            }
            Op::Patch { body, .. } => merge(&mut self.set, body),
            other => panic!("not a write of these controllers: {other:?}"),
        }
        Ok(String::new())
    }

    pub fn image(&self, pod: &PodView) -> String {
        self.images[&pod.uid].clone()
    }

    /// The pod is bound and gets ready, unless its image is broken.
    pub fn start_pod(&mut self, index: usize) {
        let Some(pod) = self.pods.get(index) else { return };
        if pod.deletion.is_some() || pod.ready || pod.is_finished() || self.broken.contains(&self.image(pod)) {
            return;
        }
        let now = self.now;
        let pod = &mut self.pods[index];
        pod.node.clone_from(&pod.target_node);
        (pod.phase, pod.ready, pod.has_ready, pod.ready_since) = ("Running", true, true, Some(now));
    }

    pub fn finish_pod(&mut self, index: usize, phase: &'static str) {
        if let Some(pod) = self.pods.get_mut(index) {
            (pod.phase, pod.ready) = (phase, false);
        }
    }

    /// A pod that was told to end has ended, and what it owned goes with it.
    pub fn end_pod(&mut self, index: usize) {
        if self.pods.get(index).is_some_and(|pod| pod.deletion.is_some()) {
            let gone = self.pods.remove(index);
            self.claims.retain(|claim| claim.owners.iter().all(|owner| owner.uid != gone.uid));
        }
    }

    pub fn end_pods(&mut self) {
        (0..self.pods.len()).rev().for_each(|index| self.end_pod(index));
    }

    pub fn start_pods(&mut self) {
        (0..self.pods.len()).for_each(|index| self.start_pod(index));
    }

    /// `NAME IMAGE` of each pod by name, with what is not usual about it.
    pub fn summary(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .pods
            .iter()
            .map(|pod| {
                let state = match pod {
                    pod if pod.deletion.is_some() => " ending",
                    pod if !pod.ready => " unready",
                    _ => "",
                };
                format!("{} {}{state}", pod.name, self.image(pod))
            })
            .collect();
        lines.sort();
        lines
    }

    /// `NUMBER IMAGE` of each revision.
    pub fn history(&self) -> Vec<String> {
        let mut revisions = self.revisions();
        reconcile::revisions::sort(&mut revisions);
        let image = |revision: &Revision| {
            let template = template_of(revision).unwrap();
            template.spec.unwrap().containers[0].image.clone().unwrap()
        };
        revisions.iter().map(|revision| format!("{} {}", revision.revision, image(revision))).collect()
    }

    pub fn revision_of(&self, pod: &str) -> String {
        let pod = self.pods.iter().find(|known| known.name == pod).unwrap();
        pod.labels[REVISION_LABEL].clone()
    }
}

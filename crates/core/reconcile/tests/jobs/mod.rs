//! One Job and its pods on a clock and dice of the test's own, with writes that may be cut off at any point.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use reconcile::PodView;
use reconcile::job::backoff::Backoff;
use reconcile::job::{State, TRACKING, is_finished};
use reconcile::plan::{JOBS, Op, PODS, Plan, merge, to_value};
use serde_json::{Value, json};

/// xorshift64*: the same seed tells the same story.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }
}

pub struct World {
    pub job: Value,
    pub pods: Vec<Value>,
    pub now: Timestamp,
    pub events: Vec<String>,
    pub backoff: Option<Backoff>,
    /// When the controller asked to be woken.
    pub wake: Option<Timestamp>,
    /// Pods that ended while the Job still tracked them, by how.
    pub ended: [BTreeSet<String>; 2],
    /// Pods that the status ever recorded, by how.
    pub recorded: [BTreeSet<String>; 2],
    count: i64,
}

const SUCCEEDED: usize = 0;
const FAILED: usize = 1;

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub fn is_tracked(pod: &Value) -> bool {
    pod["metadata"]["finalizers"].as_array().is_some_and(|list| list.contains(&json!(TRACKING)))
}

fn is_over(pod: &Value) -> bool {
    ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"))
}

impl World {
    /// A Job `j`; `spec` is merged over its defaults.
    pub fn new(spec: Value) -> Self {
        let template = json!({ "metadata": { "labels": { "uid": "j" } },
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] } });
        let mut whole = json!({ "completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
            "podReplacementPolicy": "TerminatingOrFailed", "suspend": false,
            "selector": { "matchLabels": { "uid": "j" } }, "template": template });
        merge(&mut whole, &spec);
        let job = json!({ "apiVersion": "batch/v1", "kind": "Job", "spec": whole, "status": {},
            "metadata": { "name": "j", "namespace": "a", "uid": "j", "resourceVersion": "1", "generation": 1 } });
        let now = Timestamp::from_second(1_000_000).unwrap();
        let (pods, events) = (Vec::new(), Vec::new());
        let (backoff, wake, ended, recorded) = (None, None, Default::default(), Default::default());
        Self { job, pods, now, events, backoff, wake, ended, recorded, count: 1 }
    }

    fn next(&mut self) -> String {
        self.count += 1;
        self.count.to_string()
    }

    pub fn tick(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn time(&self) -> Value {
        json!(self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }

    /// The user's edit of the Job.
    pub fn edit(&mut self, spec: Value) {
        merge(&mut self.job, &json!({ "spec": spec }));
        self.job["metadata"]["resourceVersion"] = self.next().into();
    }

    pub fn typed(&self) -> Job {
        serde_json::from_value(self.job.clone()).unwrap()
    }

    pub fn is_finished(&self) -> bool {
        is_finished(&self.typed())
    }

    pub fn plan(&self, next: fn(&State<'_>) -> Plan) -> (Plan, Backoff) {
        let job = self.typed();
        let views = self.pods.iter().map(|pod| {
            let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
            Arc::new(PodView::from_pod(pod))
        });
        let views: Vec<_> = views.collect();
        let state = State::new(&job, job.spec.as_ref().unwrap(), &views, self.backoff, self.now);
        (next(&state), state.backoff())
    }

    /// One reconcile as the shell does it, cut off after `writes_max` writes; what was remembered is then lost.
    pub fn reconcile(&mut self, writes_max: usize) -> bool {
        let mut left = writes_max;
        let mut changed = false;
        self.wake = None;
        if self.is_finished() {
            return false;
        }
        let steps: [fn(&State<'_>) -> Plan; 2] = [|state| state.manage(), |state| state.track()];
        for next in steps {
            for round in 0.. {
                assert!(round < 12, "never done: {:#?}", self.plan(next));
                let (plan, backoff) = self.plan(next);
                if let Some(after) = plan.requeue_after {
                    let at = self.now + SignedDuration::try_from(after).unwrap();
                    self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
                }
                if plan.is_empty() {
                    break;
                }
                changed = true;
                for step in plan.steps.iter().chain(&plan.batch) {
                    if left == 0 {
                        self.backoff = None;
                        return true;
                    }
                    left -= 1;
                    let name = self.write(&step.op);
                    if let Some(note) = &step.done {
                        self.events.push(format!("{}: {}", note.reason, note.message.replace("{name}", &name)));
                    }
                }
                if plan.steps.iter().any(|step| step.op.resource() == JOBS) {
                    self.backoff = Some(backoff);
                }
                if self.is_finished() {
                    return true;
                }
            }
        }
        changed
    }

    fn write(&mut self, op: &Op) -> String {
        let version = self.next();
        match op {
            Op::Create { resource: PODS, object, .. } => {
                let mut pod = object.clone();
                let name = format!("{}{version}", text(object, "/metadata/generateName"));
                merge(
                    &mut pod,
                    &json!({ "status": { "phase": "Pending" }, "metadata": { "name": name, "namespace": "a",
                    "uid": format!("u{version}"), "resourceVersion": version, "creationTimestamp": self.time() } }),
                );
                self.pods.push(pod);
                name
            }
            Op::Delete { resource: PODS, name, uid, .. } => {
                self.delete(name, uid.as_deref());
                name.clone()
            }
            Op::Patch { resource: PODS, name, body, .. } => {
                let index = self.pods.iter().position(|pod| pod["metadata"]["name"] == **name).unwrap();
                assert_eq!(self.pods[index]["metadata"]["uid"], body["metadata"]["uid"]);
                let seen = &body["metadata"]["resourceVersion"];
                assert!(seen.is_null() || *seen == self.pods[index]["metadata"]["resourceVersion"], "stale");
                self.patch_pod(index, body);
                self.pods[index]["metadata"]["resourceVersion"] = version.into();
                self.collect();
                name.clone()
            }
            Op::Patch { resource: JOBS, subresource: Some("status"), body, .. } => {
                assert_eq!(body["metadata"]["resourceVersion"], self.job["metadata"]["resourceVersion"], "stale");
                let old = self.job.clone();
                merge(&mut self.job["status"], &body["status"]);
                self.job["metadata"]["resourceVersion"] = version.into();
                self.check_status(&old);
                String::new()
            }
            other => panic!("not a write of this controller: {other:?}"),
        }
    }

    fn patch_pod(&mut self, index: usize, body: &Value) {
        let pod = &mut self.pods[index];
        let removed = &body["metadata"]["$deleteFromPrimitiveList/finalizers"];
        if removed.is_null() {
            merge(&mut pod["metadata"], &body["metadata"]);
            return;
        }
        let (uid, phase) = (text(pod, "/metadata/uid").to_owned(), text(pod, "/status/phase").to_owned());
        let removed = removed.as_array().unwrap().clone();
        if let Some(list) = pod["metadata"]["finalizers"].as_array_mut() {
            list.retain(|finalizer| !removed.contains(finalizer));
        }
        // Nothing that ended loses its finalizer before the stored status knows of it.
        let index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].as_str();
        let completed = text(&self.job, "/status/completedIndexes");
        let completed = reconcile::job::indexes::Indexes::parse(completed, i64::MAX);
        let by_index = index.and_then(|index| index.parse().ok()).is_some_and(|index: i64| completed.contains(index));
        let known = self.recorded[SUCCEEDED].contains(&uid) || self.recorded[FAILED].contains(&uid);
        let ignored = !self.job["spec"]["podFailurePolicy"].is_null();
        let needs = ["Succeeded", "Failed"].contains(&phase.as_str()) && !ignored;
        assert!(!needs || known || by_index, "{uid} was freed before it was recorded");
    }

    /// Upstream's own rules for statuses hold at every write, and no pod is recorded twice.
    fn check_status(&mut self, old: &Value) {
        let row = kinds::find("batch", "v1", "Job").unwrap();
        let errors = (row.validate_status)(&self.job, old);
        assert!(errors.is_empty(), "{errors:?}\n{}\n{}", old["status"], self.job["status"]);
        for (kind, name) in [(SUCCEEDED, "succeeded"), (FAILED, "failed")] {
            let list = |job: &Value| -> BTreeSet<String> {
                let uids = job["status"]["uncountedTerminatedPods"][name].as_array().cloned().unwrap_or_default();
                uids.iter().map(|uid| uid.as_str().unwrap().to_owned()).collect()
            };
            for uid in list(&self.job).difference(&list(old)) {
                let twice = self.recorded.iter().any(|known| known.contains(uid));
                assert!(!twice, "{uid} is recorded twice");
                self.recorded[kind].insert(uid.clone());
            }
            let counted = self.recorded[kind].len() - list(&self.job).len();
            if self.job["spec"]["completionMode"] == "NonIndexed" || kind == FAILED {
                assert_eq!(self.job["status"][name].as_u64().unwrap_or(0), counted as u64, "{name}");
            }
        }
    }

    /// Somebody deletes a pod.
    pub fn delete(&mut self, name: &str, uid: Option<&str>) {
        let now = self.time();
        if let Some(pod) = self.pods.iter_mut().find(|pod| pod["metadata"]["name"] == *name) {
            assert!(uid.is_none_or(|uid| pod["metadata"]["uid"] == uid));
            if pod["metadata"]["deletionTimestamp"].is_null() {
                pod["metadata"]["deletionTimestamp"] = now;
            }
        }
        self.collect();
    }

    /// Pods that were told to end, ended, and keep nobody waiting are gone.
    fn collect(&mut self) {
        self.pods.retain(|pod| {
            let free = pod["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
            pod["metadata"]["deletionTimestamp"].is_null() || !free || !is_over(pod)
        });
    }

    /// The kubelet starts a pod.
    pub fn start(&mut self, index: usize) {
        let Some(pod) = self.pods.get_mut(index) else { return };
        if text(pod, "/status/phase") == "Pending" && pod["metadata"]["deletionTimestamp"].is_null() {
            merge(
                pod,
                &json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } }),
            );
        }
    }

    /// A pod's container ends with this code.
    pub fn end(&mut self, index: usize, code: i32) {
        let now = self.time();
        let Some(pod) = self.pods.get_mut(index).filter(|pod| !is_over(pod)) else { return };
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let state = json!({ "terminated": { "exitCode": code, "finishedAt": now } });
        let container =
            json!({ "name": "c", "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": state });
        merge(
            pod,
            &json!({ "status": { "phase": phase, "containerStatuses": [container],
            "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": now }] } }),
        );
        if is_tracked(pod) {
            self.ended[usize::from(code != 0)].insert(text(pod, "/metadata/uid").to_owned());
        }
        self.collect();
    }

    /// The kubelet ends what was told to.
    pub fn end_deleted(&mut self) {
        for index in (0..self.pods.len()).rev() {
            if self.pods.get(index).is_some_and(|pod| !pod["metadata"]["deletionTimestamp"].is_null()) {
                self.end(index, 137);
            }
        }
    }

    /// Reconciles to the end, with time passing as the controller asks; pods that were told to end do.
    pub fn settle(&mut self) {
        for _ in 0..50 {
            let changed = self.reconcile(usize::MAX);
            let leaving = self.pods.iter().any(|pod| !pod["metadata"]["deletionTimestamp"].is_null() && !is_over(pod));
            self.end_deleted();
            if !changed && !leaving {
                return;
            }
        }
        panic!("never settles: {:#?}", self.job["status"]);
    }

    /// Phases of the pods, with the indexes of those that have one.
    pub fn summary(&self) -> String {
        let pod = |pod: &Value| {
            let index = text(pod, "/metadata/labels/batch.kubernetes.io~1job-completion-index");
            let leaving = if pod["metadata"]["deletionTimestamp"].is_null() { "" } else { "-" };
            format!("{leaving}{}{index}", text(pod, "/status/phase"))
        };
        self.pods.iter().map(pod).collect::<Vec<_>>().join(" ")
    }

    /// The counts, indexes and true conditions of the status.
    pub fn status(&self) -> String {
        let status = &self.job["status"];
        let mut words = Vec::new();
        for key in ["active", "ready", "terminating", "succeeded", "failed"] {
            if let Some(number) = status[key].as_u64().filter(|number| *number > 0) {
                words.push(format!("{key}={number}"));
            }
        }
        for key in ["completedIndexes", "failedIndexes"] {
            if let Some(text) = status[key].as_str() {
                words.push(format!("{key}={text}"));
            }
        }
        for condition in status["conditions"].as_array().into_iter().flatten() {
            let off = if condition["status"] == "True" { "" } else { "!" };
            words.push(format!("{off}{}:{}", text(condition, "/type"), text(condition, "/reason")));
        }
        words.join(" ")
    }

    pub fn condition(&self, kind: &str) -> Value {
        let conditions = to_value(&self.job["status"]["conditions"]);
        conditions.as_array().into_iter().flatten().find(|c| c["type"] == kind).cloned().unwrap_or_default()
    }
}

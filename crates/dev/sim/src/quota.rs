//! Quotas: what the API server charges on the way in and what the controller counts, by core/access.

use std::time::Duration;

use access::quota::{Change, Evaluator, Quota, amounts, check, correction, counts_until, gives_back, recount};
use reconcile::plan::{Op, PatchKind, Plan, RESOURCE_QUOTAS, merge_difference};
use serde_json::{Value, json};

use crate::api::{Api, Event, Fault, NAMESPACE};
use crate::manager::Manager;
use crate::mutants::Mutant;
use crate::object::{Object, View};

/// Kinds that the simulated quotas count.
const COUNTED: [&str; 3] = ["Pod", "ReplicaSet", "Job"];
/// Objects that end together are counted together.
pub const GATHER: Duration = Duration::from_millis(50);
/// What was charged is counted once more this long after.
const CONFIRM: Duration = Duration::from_secs(5);

fn evaluator(kind: &str) -> Option<Evaluator> {
    match kind {
        "Pod" => Evaluator::of("", "pods"),
        "ReplicaSet" => Evaluator::of("apps", "replicasets"),
        "Job" => Evaluator::of("batch", "jobs"),
        _ => None,
    }
}

/// How long after a change of a quota it is counted.
pub fn delay(event: &Event) -> Duration {
    let (Some(old), Some(new)) = (&event.old, &event.new) else { return Duration::ZERO };
    let is_charge = old.value["spec"] == new.value["spec"] && new.value["spec"]["hard"] == new.value["status"]["hard"];
    if is_charge { CONFIRM } else { Duration::ZERO }
}

/// Whether an object may count for less: what is created was charged on its way in.
pub fn frees(event: &Event) -> bool {
    let Some((old, evaluator)) = event.old.as_ref().zip(evaluator(event.name.0)) else { return false };
    let essence = |object: &Object| evaluator.reads_content().then(|| evaluator.essence(&object.value));
    event.new.as_ref().is_none_or(|new| new.uid() != old.uid() || essence(new) != essence(old))
}

impl Api {
    /// Charges all quotas for an object, or none; whether any was.
    pub fn charge(&mut self, kind: &str, object: &Value) -> Result<bool, Fault> {
        let Some(evaluator) = evaluator(kind) else { return Ok(false) };
        let quotas: Vec<Quota> = self.list("ResourceQuota").map(|quota| Quota::read(&quota.value)).collect();
        let now = self.wall().as_second();
        let change = Change { evaluator: &evaluator, subresource: "", object, old: None, now };
        let charged = check(&quotas, &change).map_err(|_| Fault::Quota)?;
        for (place, used) in &charged {
            let mut used = amounts::write(used);
            if self.has(Mutant::ChargesNoCpu) {
                used["requests.cpu"] = amounts::write(&quotas[*place].used)["requests.cpu"].clone();
            }
            self.patch("ResourceQuota", &quotas[*place].name, true, false, &json!({ "status": { "used": used } }))?;
        }
        Ok(!charged.is_empty())
    }
}

impl Manager {
    /// The corrected status; less than was charged only from caches that are newer than the charge.
    pub fn plan_quota(&mut self, object: &Object, api: &Api) -> Option<Plan> {
        let (quota, now) = (&object.value, api.wall().as_second());
        let (mut status, less) = self.count(quota, now);
        if less && !self.has(Mutant::CountsStale) {
            let version: usize = object.text("metadata/resourceVersion").parse().unwrap_or(api.revision());
            COUNTED.into_iter().for_each(|kind| self.caches.reach(kind, api, version + 1));
            status = self.count(quota, now).0;
        }
        let mut plan = Plan::default();
        if let Some(status) = status.and_then(|status| merge_difference(&quota["status"], &status)) {
            plan.push(Op::Patch {
                resource: RESOURCE_QUOTAS,
                namespace: NAMESPACE.to_owned(),
                name: object.name().to_owned(),
                subresource: Some("status"),
                kind: PatchKind::Update,
                body: json!({ "metadata": { "resourceVersion": quota["metadata"]["resourceVersion"] }, "status": status }),
            });
        }
        let ends = self.caches.list("Pod").filter_map(|pod| counts_until(&pod.value)).filter(|end| *end >= now);
        if let Some(end) = ends.min() {
            plan.requeue(Duration::from_secs((end - now).unsigned_abs() + 1));
        }
        Some(plan)
    }

    fn count(&self, quota: &Value, now: i64) -> (Option<Value>, bool) {
        let objects: Vec<(Evaluator, Vec<Value>)> = COUNTED
            .iter()
            .filter_map(|kind| {
                let evaluator = evaluator(kind)?;
                let essence =
                    |value: &Value| if evaluator.reads_content() { evaluator.essence(value) } else { Value::Null };
                let skipped = usize::from(*kind == "Pod" && self.has(Mutant::CountsFewer));
                let objects = self.caches.list(kind).skip(skipped).map(|object| essence(&object.value)).collect();
                Some((evaluator, objects))
            })
            .collect();
        let (hard, used) = recount(quota, objects.iter().map(|(evaluator, list)| (evaluator.clone(), list)), now);
        (correction(quota, &hard, &used), gives_back(quota, &used))
    }
}

/// What is there of a resource of quotas, told apart from how quotas count: pods that end are left out, for their time
/// to count ends by a clock.
fn there(api: &Api, resource: &str) -> i64 {
    let pods = || {
        api.list("Pod").filter(|pod| !pod.is_deleting()).filter_map(|pod| match &pod.view {
            View::Pod(view, info) if !view.is_finished() => Some(info.requests.get("cpu")),
            _ => None,
        })
    };
    let count = |kind| i64::try_from(api.list(kind).count()).unwrap_or(i64::MAX);
    match resource {
        "pods" => i64::try_from(pods().count()).unwrap_or(i64::MAX) * 1000,
        "requests.cpu" => pods().sum(),
        "count/replicasets.apps" => count("ReplicaSet") * 1000,
        _ => count("Job") * 1000,
    }
}

/// Resources of quotas that an object of a kind uses.
fn resources(kind: &str) -> &'static [&'static str] {
    match kind {
        "Pod" => &["pods", "requests.cpu"],
        "ReplicaSet" => &["count/replicasets.apps"],
        "Job" => &["count/jobs.batch"],
        _ => &[],
    }
}

/// Nothing is created beyond what a quota enforces.
pub fn within_quotas(api: &Api, event: &Event) -> Result<(), String> {
    let used = if event.old.is_none() { resources(event.name.0) } else { &[] };
    for resource in used {
        for quota in api.list("ResourceQuota") {
            let hard = amounts::read(&quota.value["status"]["hard"]).get(*resource).map(|hard| hard.milli_value());
            let there = there(api, resource);
            if hard.is_some_and(|hard| there > hard) {
                return Err(format!("{} makes {there}m of {resource}, above the quota of {hard:?}m", event.name.1));
            }
        }
    }
    Ok(())
}

/// At rest: quotas state their limits, and what is there.
pub fn all_stated(api: &Api) -> Result<(), String> {
    for quota in api.list("ResourceQuota") {
        let of = |path: &str| amounts::read(crate::object::at(&quota.value, path));
        if of("status/hard") != of("spec/hard") {
            return Err(format!("the quota states limits at rest that it does not have: {}", quota.value["status"]));
        }
        for (resource, used) in of("status/used") {
            let there = there(api, &resource);
            if used.milli_value() != there {
                return Err(format!("the quota states {used} of {resource} at rest, {there}m is there"));
            }
        }
    }
    Ok(())
}

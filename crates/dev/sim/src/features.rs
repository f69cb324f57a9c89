//! What only some histories have: a quota, an autoscaler, the end of the namespace.

use access::quota::amounts;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::api::Api;
use crate::autoscaler::NAME;
use crate::dice::Dice;
use crate::scenario::{create, edit, object, selector, template};

/// One history in so many has a quota, an autoscaler, a namespace that is deleted.
const QUOTA_IN: usize = 6;
const AUTOSCALER_IN: usize = 8;
const NAMESPACE_ENDS_IN: usize = 6;
/// What one pod of the autoscaler's target is meant to do.
const EACH: usize = 10;
const REPLICAS_MIN: usize = 2;
const REPLICAS_MAX: usize = 6;
/// How long a slow request takes to store what it was admitted with, in milliseconds.
const SLOW_MAX: usize = 900;

pub struct Features {
    pub quota: bool,
    pub autoscaler: bool,
    /// At which of so many steps the namespace is deleted.
    pub namespace_ends: Option<usize>,
}

impl Features {
    pub fn of(seed: u64, steps: usize) -> Self {
        let mut dice = Dice::new(seed ^ 0xFEA7);
        let (quota, autoscaler) = (dice.once_in(QUOTA_IN), dice.once_in(AUTOSCALER_IN));
        let namespace_ends = dice.once_in(NAMESPACE_ENDS_IN).then(|| steps / 4 + dice.below(steps * 3 / 4));
        Self { quota, autoscaler, namespace_ends }
    }

    /// Before the workloads: who is to count them has to be there.
    pub fn populate(&self, api: &mut Api, dice: &mut Dice) {
        if self.quota {
            create(api, object("v1", "ResourceQuota", "quota", json!({ "hard": ample() })));
        }
        if self.autoscaler {
            let target = json!({ "replicas": REPLICAS_MIN, "selector": selector(NAME), "revisionHistoryLimit": 2,
                "template": template(NAME, 1, "50m"), "progressDeadlineSeconds": 600 });
            create(api, object("apps/v1", "Deployment", NAME, target));
            create(api, object("autoscaling/v2", "HorizontalPodAutoscaler", NAME, scaler(dice)));
        }
    }

    pub fn any(&self) -> bool {
        self.quota || self.autoscaler || self.namespace_ends.is_some()
    }

    /// One thing that a user does with one of these.
    pub fn act(&self, api: &mut Api, dice: &mut Dice, load: &mut usize) -> String {
        let parts = [(self.quota, 0), (self.autoscaler, 1), (self.autoscaler, 2), (self.namespace_ends.is_some(), 3)];
        let parts: Vec<usize> = parts.into_iter().filter(|(has, _)| *has).map(|(_, part)| part).collect();
        match dice.pick(&parts) {
            Some(0) => {
                let limits = limits(api, dice);
                edit(api, "ResourceQuota", "quota", json!({ "hard": limits }))
            }
            Some(1) => {
                *load = some_load(dice);
                format!("The load becomes {load}m")
            }
            Some(2) => edit(api, "Deployment", NAME, json!({ "replicas": 1 + dice.below(9) })),
            _ => create_slowly(api, dice),
        }
    }
}

/// Ends what would keep the cluster from coming to rest as it should.
pub fn calm_down(api: &mut Api) {
    edit(api, "ResourceQuota", "quota", json!({ "hard": ample() }));
}

/// Somebody creates a ReplicaSet, and the request takes its time between admission and store.
pub fn create_slowly(api: &mut Api, dice: &mut Dice) -> String {
    let spec = json!({ "replicas": 1, "selector": selector("late"), "template": template("late", 1, "50m") });
    let late = object("apps/v1", "ReplicaSet", "late", spec);
    let delay = SignedDuration::from_millis(i64::try_from(dice.below(SLOW_MAX)).unwrap_or(0));
    format!("User creates a ReplicaSet slowly: {:?}", api.create_slowly("ReplicaSet", late, delay))
}

pub fn some_load(dice: &mut Dice) -> usize {
    dice.below((REPLICAS_MAX + 2) * EACH * 1000)
}

fn ample() -> Value {
    json!({ "pods": "80", "requests.cpu": "20", "count/jobs.batch": "30", "count/replicasets.apps": "40" })
}

/// Little more than what is used, of some resources.
fn limits(api: &Api, dice: &mut Dice) -> Value {
    let mut limits = ample();
    let used = api.get("ResourceQuota", "quota").map(|quota| amounts::read(&quota.value["status"]["used"]));
    for (resource, milli) in used.unwrap_or_default() {
        let room = if resource == "requests.cpu" { 100 * dice.below(8) } else { 1000 * dice.below(3) };
        if dice.once_in(2) {
            limits[resource] = format!("{}m", milli.milli_value() + i64::try_from(room).unwrap_or(0)).into();
        }
    }
    limits
}

fn scaler(dice: &mut Dice) -> Value {
    let (metric, target) =
        (json!({ "name": "load" }), json!({ "type": "AverageValue", "averageValue": EACH.to_string() }));
    let metric = match dice.once_in(2) {
        true => json!({ "type": "Pods", "pods": { "metric": metric, "target": target } }),
        false => json!({ "type": "External", "external": { "metric": metric, "target": target } }),
    };
    let reference = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": NAME });
    let mut spec = json!({ "minReplicas": REPLICAS_MIN, "maxReplicas": REPLICAS_MAX, "scaleTargetRef": reference,
        "metrics": [metric] });
    if dice.once_in(2) {
        let rules = |window: usize, pods: i32| {
            json!({ "stabilizationWindowSeconds": window, "selectPolicy": "Max",
                "policies": [{ "type": "Pods", "value": pods, "periodSeconds": 15 }] })
        };
        spec["behavior"] = json!({ "scaleUp": rules(0, 2), "scaleDown": rules(30 * dice.below(2), 1) });
    }
    spec
}

//! What must be true of an autoscaler: its limits, its pace, and what it comes to.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerSpec};

use crate::api::Api;
use crate::autoscaler::{Move, NAME};

/// Without a behaviour a step at most doubles the pods, or brings them to this many.
const STEP_UP_PODS: i32 = 4;
/// By how much the load may differ from what the replicas are meant for, in percent: the tolerance, and what rounding
/// takes from each pod's share.
const TOLERANCE_PERCENT: u64 = 12;

/// The steps of one process, as far as it has to remember them.
#[derive(Default)]
pub struct Pace {
    steps: Vec<(Timestamp, i32)>,
}

fn spec(api: &Api) -> Option<&HorizontalPodAutoscalerSpec> {
    Some(&api.get("HorizontalPodAutoscaler", NAME)?.autoscaler()?.spec)
}

/// What the only policy of these rules allows in its period, and that.
fn policy(rules: Option<&HPAScalingRules>) -> Option<(i32, SignedDuration)> {
    let policy = rules?.policies.as_ref()?.first()?;
    Some((policy.value, SignedDuration::from_secs(i64::from(policy.period_seconds))))
}

impl Pace {
    /// The process restarted, or its clock was set: what it did before is no measure any more.
    pub fn forget(&mut self) {
        self.steps.clear();
    }

    pub fn judge(&mut self, made: Move, api: &Api) -> Result<(), String> {
        let Some(spec) = spec(api) else { return Ok(()) };
        let Move { from, to, lost } = made;
        let range = spec.min_replicas.unwrap_or(1)..=spec.max_replicas;
        if !range.contains(&to) {
            return Err(format!("the autoscaler sets {to} replicas, {range:?} are meant"));
        }
        self.steps.push((api.now, to - from));
        let rules = spec.behavior.as_ref().and_then(|behavior| {
            policy(if to > from { behavior.scale_up.as_ref() } else { behavior.scale_down.as_ref() })
        });
        let result = match rules {
            // Who is outside of the range is brought back at once.
            _ if !range.contains(&from) => Ok(()),
            Some((most, period)) => {
                let recent = self.steps.iter().filter(|(at, _)| api.now.duration_since(*at) < period);
                let sum: i32 = recent.map(|(_, step)| step).sum();
                let fast = sum.abs() > most && sum.signum() == (to - from).signum();
                if fast { Err(format!("{sum:+} replicas in one period, {most} are allowed")) } else { Ok(()) }
            }
            None if to > (from * 2).max(STEP_UP_PODS) => Err(format!("{from} replicas become {to} in one step")),
            None => Ok(()),
        };
        if lost {
            self.forget();
        }
        result
    }
}

/// At rest: the replicas are what the metric asks for, within the limits.
pub fn fits(api: &Api, load: usize) -> Result<(), String> {
    let (Some(spec), Some(target)) = (spec(api), api.get("Deployment", NAME)) else { return Ok(()) };
    let metric = api.get("HorizontalPodAutoscaler", NAME).map(|scaler| &scaler.value["spec"]["metrics"][0]);
    let each = metric.map(|metric| if metric["type"] == "External" { &metric["external"] } else { &metric["pods"] });
    let each =
        each.and_then(|source| source["target"]["averageValue"].as_str()?.parse::<u64>().ok()).unwrap_or(1) * 1000;
    let (load, found) = (load as u64, target.number("spec/replicas"));
    let limit = |limit: i32| u64::try_from(limit).unwrap_or(0);
    let wanted = load.div_ceil(each).clamp(limit(spec.min_replicas.unwrap_or(1)), limit(spec.max_replicas));
    let near = (load * 100).abs_diff(each * found * 100) <= each * found * TOLERANCE_PERCENT;
    if found == wanted || near {
        return Ok(());
    }
    Err(format!("{found} replicas at rest, a load of {load}m asks for {wanted}"))
}

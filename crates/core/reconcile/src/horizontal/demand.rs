//! How many replicas one figure asks for. Figures and targets are in thousandths.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::pods::{Groups, ready_count, requests};
use super::sources::Sample;

/// The ratios of use to target that change nothing: from `1 - down` to `1 + up`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    pub up: f64,
    pub down: f64,
}

impl Tolerance {
    fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// What pods should use on average.
pub(super) enum Goal<'a> {
    /// Percent of what is requested of a resource, by one container or by the pod.
    Utilization {
        percent: i32,
        resource: &'a str,
        container: Option<&'a str>,
    },
    Average(i64),
}

/// Replicas, and what there is of the figure: on average over pods, or as a whole.
#[derive(Debug, PartialEq)]
pub(super) struct Demand {
    pub replicas: i32,
    pub figure: i64,
    pub percent: Option<i32>,
}

/// The goal with the requests it is measured in.
enum Measure<'a> {
    Utilization(i32, BTreeMap<&'a str, i64>),
    Average(i64),
}

struct Use {
    ratio: f64,
    percent: Option<i32>,
    average: i64,
}

fn whole(replicas: f64) -> i32 {
    // Cut to what 32 bits hold.
    replicas.ceil() as i32
}

impl Measure<'_> {
    fn weigh(&self, figures: &BTreeMap<&str, i64>) -> Result<Use, String> {
        let sum = |values: &mut dyn Iterator<Item = i64>| values.fold(0_i64, i64::saturating_add);
        let count = |length: usize| i64::try_from(length).unwrap_or(i64::MAX).max(1);
        match self {
            Self::Average(target) => {
                let average = sum(&mut figures.values().copied()) / count(figures.len());
                Ok(Use { ratio: average as f64 / *target as f64, percent: None, average })
            }
            Self::Utilization(target, requests) => {
                let known = || figures.iter().filter_map(|(pod, used)| Some((*used, *requests.get(pod)?)));
                let (used, wanted) = (sum(&mut known().map(|(used, _)| used)), sum(&mut known().map(|(_, r)| r)));
                if wanted == 0 {
                    return Err("no metrics returned matched known pods".to_owned());
                }
                let percent = i32::try_from(used.saturating_mul(100) / wanted).unwrap_or(i32::MAX);
                let (ratio, average) = (f64::from(percent) / f64::from(*target), used / count(known().count()));
                Ok(Use { ratio, percent: Some(percent), average })
            }
        }
    }

    /// What a pod without figures is taken to use when the others use little.
    fn full(&self, pod: &str) -> i64 {
        match self {
            Self::Average(target) => *target,
            Self::Utilization(target, requests) => {
                requests.get(pod).map_or(0, |request| request.saturating_mul(i64::from(*target.max(&100))) / 100)
            }
        }
    }
}

/// From the figures of single pods. Those that tell nothing are taken to speak against any change.
pub(super) fn of_pods(
    current: i32,
    pods: &[Pod],
    samples: &BTreeMap<String, Sample>,
    (goal, cpu): (Goal<'_>, bool),
    tolerance: Tolerance,
    now: Timestamp,
) -> Result<Demand, String> {
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = Groups::of(pods, samples, cpu, now);
    let counts = |pod: &str| !groups.ignored.contains(pod) && !groups.unready.contains(pod);
    let known = samples.iter().filter(|(pod, _)| counts(pod));
    let mut figures: BTreeMap<&str, i64> = known.map(|(pod, sample)| (pod.as_str(), sample.milli)).collect();
    if figures.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let measure = match goal {
        Goal::Average(target) => Measure::Average(target),
        Goal::Utilization { percent, resource, container } => {
            Measure::Utilization(percent, requests(pods, container, resource)?)
        }
    };
    let Use { ratio, percent, average: figure } = measure.weigh(&figures)?;
    let starting = !groups.unready.is_empty() && ratio > 1.0;
    if !starting && groups.missing.is_empty() {
        let replicas = if tolerance.covers(ratio) { current } else { whole(ratio * groups.ready as f64) };
        return Ok(Demand { replicas, figure, percent });
    }
    if ratio < 1.0 {
        figures.extend(groups.missing.iter().map(|pod| (*pod, measure.full(pod))));
    } else if ratio > 1.0 {
        figures.extend(groups.missing.iter().chain(&groups.unready).map(|pod| (*pod, 0)));
    }
    let again = measure.weigh(&figures)?.ratio;
    let wanted = whole(again * figures.len() as f64);
    let turned = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
    let against = (again < 1.0 && wanted > current) || (again > 1.0 && wanted < current);
    let replicas = if tolerance.covers(again) || turned || against { current } else { wanted };
    Ok(Demand { replicas, figure, percent })
}

/// From one figure that all pods share, with a target for the whole.
pub(super) fn of_whole(
    current: i32,
    figure: i64,
    target: i64,
    tolerance: Tolerance,
    pods: &[Pod],
) -> Result<Demand, String> {
    let ratio = figure as f64 / target as f64;
    let replicas = if current == 0 {
        whole(ratio)
    } else if tolerance.covers(ratio) {
        current
    } else if pods.is_empty() {
        let why = "no pods returned by selector while calculating replica count";
        return Err(format!("unable to calculate ready pods: {why}"));
    } else {
        whole(ratio * ready_count(pods) as f64)
    };
    Ok(Demand { replicas, figure, percent: None })
}

/// From one figure that all pods share, with a target for each pod.
pub(super) fn of_share(replicas_now: i32, figure: i64, target: i64, tolerance: Tolerance) -> Demand {
    let ratio = figure as f64 / (target as f64 * f64::from(replicas_now));
    let replicas = if tolerance.covers(ratio) { replicas_now } else { whole(figure as f64 / target as f64) };
    let share = (figure as f64 / f64::from(replicas_now.max(1))).ceil() as i64;
    Demand { replicas, figure: if figure == i64::MAX { figure } else { share }, percent: None }
}

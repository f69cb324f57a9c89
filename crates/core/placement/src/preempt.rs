//! Preemption: on which node the fewest and least important pods have to go so that a pod fits, in upstream's order.

use std::sync::Arc;

use crate::place::Trial;
use crate::plugin::Rejection;
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// Candidates that are compared: this share of the possible nodes, but not fewer than the minimum.
const CANDIDATES_PERCENT: usize = 10;
const CANDIDATES_MIN: usize = 100;

pub const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// Who has to go where so that a pod fits.
#[derive(Clone, Debug, Default)]
pub struct Preemption {
    pub node: String,
    /// The most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// Pods of lower priority for which this node's room was kept; they have to look again.
    pub displaced: Vec<Arc<PodInfo>>,
}

/// What looking for victims came to.
#[derive(Clone, Debug)]
pub enum Attempt {
    Victims(Preemption),
    /// Room is being made already, or the pod may not push others out: `preemption: ...`.
    NotEligible(&'static str),
    /// Why each node does not help: one list of reasons per node.
    Hopeless(Vec<Vec<String>>),
}

struct Candidate {
    node: String,
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

/// Looks for victims on the nodes that refused the pod.
pub fn attempt(pod: &PodInfo, snapshot: &Snapshot, refused: &[(&NodeInfo, &Rejection)], seed: u64) -> Attempt {
    if let Some(why) = ineligible(pod, snapshot, refused) {
        return Attempt::NotEligible(why);
    }
    let possible: Vec<&NodeInfo> = refused.iter().filter(|(_, why)| !why.final_).map(|(node, _)| *node).collect();
    let mut reasons: Vec<Vec<String>> = vec![vec![NOT_HELPFUL.to_owned()]; refused.len() - possible.len()];
    let wanted = (possible.len() * CANDIDATES_PERCENT / 100).max(CANDIDATES_MIN);
    let first = usize::try_from(seed % possible.len().max(1) as u64).unwrap_or(0);
    let mut candidates: Vec<Candidate> = Vec::new();
    for node in possible.iter().cycle().skip(first).take(possible.len()) {
        match victims(pod, snapshot, node) {
            Ok(candidate) => candidates.push(candidate),
            Err(why) => reasons.push(why),
        }
        if candidates.len() >= wanted && candidates.iter().any(|candidate| candidate.violations == 0) {
            break;
        }
    }
    let Some(best) = best(candidates) else { return Attempt::Hopeless(reasons) };
    let lower = |other: &&Arc<PodInfo>| other.priority < pod.priority;
    let displaced = snapshot.nominated(&best.node).iter().filter(lower).cloned().collect();
    Attempt::Victims(Preemption { node: best.node, victims: best.victims, displaced })
}

fn ineligible(pod: &PodInfo, snapshot: &Snapshot, refused: &[(&NodeInfo, &Rejection)]) -> Option<&'static str> {
    if !pod.preempts {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let node = snapshot.node(snapshot.nomination(&pod.uid)?)?;
    let why = refused.iter().find(|(one, _)| one.spec.name == node.spec.name).map(|(_, why)| why);
    if why.is_some_and(|why| why.final_) {
        return None;
    }
    let goes = |other: &Arc<PodInfo>| other.priority < pod.priority && other.deleting && other.preempted;
    node.pods.iter().any(goes).then_some("not eligible due to a terminating pod on the nominated node.")
}

/// Higher priority first, then whoever runs longer; who did not start yet starts now.
fn importance(pod: &PodInfo) -> (std::cmp::Reverse<i32>, i64) {
    (std::cmp::Reverse(pod.priority), pod.started.unwrap_or(i64::MAX))
}

/// The fewest pods of lower priority that have to leave a node: all are taken away, then as many as possible come
/// back, first those whose loss would break a budget.
fn victims(pod: &PodInfo, snapshot: &Snapshot, node: &NodeInfo) -> Result<Candidate, Vec<String>> {
    let mut lower: Vec<Arc<PodInfo>> =
        node.pods.iter().filter(|other| other.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return Err(vec![NO_VICTIMS.to_owned()]);
    }
    let mut trial = Trial::new(pod, snapshot, node);
    for other in &lower {
        trial.remove(other);
    }
    trial.fits().map_err(|why| why.reasons)?;
    lower.sort_by_key(|other| importance(other));
    let (violating, harmless) = by_budget(&lower, snapshot);
    let (mut victims, mut violations) = (Vec::new(), 0);
    for (group, violates) in [(violating, 1), (harmless, 0)] {
        for other in group {
            trial.add(&other);
            if trial.fits().is_err() {
                trial.remove(&other);
                victims.push(other);
                violations += violates;
            }
        }
    }
    victims.sort_by_key(|other| importance(other));
    Ok(Candidate { node: node.spec.name.clone(), victims, violations })
}

type Pods = Vec<Arc<PodInfo>>;

/// Pods whose loss would break a budget, and the others.
fn by_budget(pods: &[Arc<PodInfo>], snapshot: &Snapshot) -> (Pods, Pods) {
    let mut budgets: Vec<_> =
        snapshot.budgets().map(|(namespace, budget)| (namespace, budget, budget.allowed)).collect();
    pods.iter().cloned().partition(|pod| {
        let mut violates = false;
        for (namespace, budget, allowed) in &mut budgets {
            if *namespace == pod.namespace && budget.counts(pod) {
                *allowed -= 1;
                violates |= *allowed < 0;
            }
        }
        violates
    })
}

/// Fewest broken budgets, then the lowest highest priority, the lowest sum of priorities, the fewest victims, and the
/// most recently started among the most important ones.
fn best(candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.into_iter().filter(|candidate| !candidate.victims.is_empty()).min_by_key(|candidate| {
        let highest = candidate.victims.iter().map(|pod| pod.priority).max().unwrap_or(i32::MIN);
        // Every pod weighs something, so that fewer pods of negative priority are better, too.
        let weight = |pod: &Arc<PodInfo>| i64::from(pod.priority) + i64::from(i32::MAX) + 1;
        let sum: i64 = candidate.victims.iter().map(weight).sum();
        let important = candidate.victims.iter().filter(|pod| pod.priority == highest);
        let started = important.map(|pod| pod.started.unwrap_or(i64::MAX)).min().unwrap_or(i64::MAX);
        (candidate.violations, highest, sum, candidate.victims.len(), std::cmp::Reverse(started))
    })
}

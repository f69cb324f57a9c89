//! PodTopologySpread: keeps matching pods even over domains, and pods of one owner apart when nothing else is asked.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use meta::labels::Selector;

use super::{node_affinity, taint_toleration};
use crate::plugin::{Plugin, Rejection, SCORE_MAX, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

pub const PLUGIN: Plugin = Plugin {
    name: "PodTopologySpread",
    weight: 2,
    prepare: |pod, snapshot| {
        let mut rules: Vec<Rule> = pod.spread.iter().map(|c| Rule::stated(c, pod, snapshot)).collect();
        let strict = !rules.is_empty();
        if pod.spread.is_empty()
            && let Some(owner) = &pod.owner
        {
            // Upstream's system defaults, which only prefer.
            for (key, skew) in [("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5)] {
                let is_alike = |other: &PodInfo| other.owner.as_ref() == Some(owner);
                rules.push(Rule::count(key, skew, Need::Prefer, snapshot, &is_alike, &|_| true));
            }
        }
        Box::new(Spread { rules, strict })
    },
};

#[derive(PartialEq, Eq)]
enum Need {
    /// DoNotSchedule: the pod counts itself in (1) when its own labels match the selector.
    Require {
        itself: i64,
        domains_min: usize,
    },
    Prefer,
}

/// One constraint with the matching pods counted per domain.
struct Rule {
    key: String,
    skew_max: i64,
    need: Need,
    counts: BTreeMap<String, i64>,
}

struct Spread {
    rules: Vec<Rule>,
    /// The pod states its constraints itself: nodes without all their topologies are not preferred.
    strict: bool,
}

/// The score of a node that the constraints say nothing about.
const IGNORED: i64 = i64::MIN;

impl Rule {
    fn stated(constraint: &TopologySpreadConstraint, pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let mut selector = constraint
            .label_selector
            .as_ref()
            .and_then(|selector| serde_json::to_value(selector).ok())
            .and_then(|selector| Selector::from_label_selector(&selector));
        // Keys of the pod's own labels narrow the selector, so that revisions of one workload spread on their own.
        if let Some(selector) = &mut selector {
            for key in constraint.match_label_keys.iter().flatten() {
                if let Some(value) = pod.labels.get(key) {
                    let more = BTreeMap::from([(key.clone(), value.clone())]);
                    let more = serde_json::to_value(more).unwrap_or_default();
                    selector.requirements.extend(Selector::from_map(&more).requirements);
                }
            }
        }
        let matches = |other: &PodInfo| {
            let labels = serde_json::to_value(&other.labels).unwrap_or_default();
            selector.as_ref().is_some_and(|selector| selector.matches(&labels))
        };
        let is_alike = |other: &PodInfo| other.namespace == pod.namespace && matches(other);
        let affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
        let taints = constraint.node_taints_policy.as_deref() == Some("Honor");
        // Constraints of one kind are looked at together: a node without one of their topologies has no domain.
        let alike = pod.spread.iter().filter(|c| c.when_unsatisfiable == constraint.when_unsatisfiable);
        let keys: Vec<&String> = alike.map(|c| &c.topology_key).collect();
        let counts = |node: &NodeInfo| {
            if !keys.iter().all(|key| node.spec.labels.contains_key(*key)) {
                return false;
            }
            let keeps_out = |effect: &str| effect == "NoSchedule" || effect == "NoExecute";
            (!affinity || node_affinity::selects(pod, &node.spec))
                && (!taints
                    || node.spec.taints.iter().all(|t| !keeps_out(&t.effect) || taint_toleration::tolerates(pod, t)))
        };
        let need = if constraint.when_unsatisfiable == "DoNotSchedule" {
            let domains_min = constraint.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
            Need::Require { itself: i64::from(matches(pod)), domains_min }
        } else {
            Need::Prefer
        };
        Self::count(&constraint.topology_key, i64::from(constraint.max_skew), need, snapshot, &is_alike, &counts)
    }

    fn count(
        key: &str,
        skew_max: i64,
        need: Need,
        snapshot: &Snapshot,
        is_alike: &dyn Fn(&PodInfo) -> bool,
        node_counts: &dyn Fn(&NodeInfo) -> bool,
    ) -> Self {
        let mut counts = BTreeMap::new();
        for node in snapshot.nodes().filter(|node| node_counts(node)) {
            let Some(domain) = node.spec.labels.get(key) else { continue };
            let alike = node.pods.iter().filter(|pod| !pod.deleting && is_alike(pod)).count();
            *counts.entry(domain.clone()).or_insert(0) += i64::try_from(alike).unwrap_or(i64::MAX);
        }
        Self { key: key.to_owned(), skew_max, need, counts }
    }
}

impl Verdict for Spread {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for rule in &self.rules {
            let Need::Require { itself, domains_min } = rule.need else { continue };
            let Some(domain) = node.spec.labels.get(&rule.key) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Rejection::final_(reason));
            };
            // With fewer domains than asked for, the emptiest is one that does not exist yet.
            let enough = rule.counts.len() >= domains_min;
            let least = if enough { rule.counts.values().copied().min().unwrap_or(0) } else { 0 };
            let here = rule.counts.get(domain).copied().unwrap_or(0);
            if here + itself - least > rule.skew_max {
                return Err(Rejection::curable("node(s) didn't match pod topology spread constraints"));
            }
        }
        Ok(())
    }

    /// The weighted number of alike pods in the node's domains; fewer is better.
    fn score(&self, node: &NodeInfo) -> Option<i64> {
        let mut rules = self.rules.iter().filter(|rule| rule.need == Need::Prefer).peekable();
        rules.peek()?;
        let has_all =
            || self.rules.iter().all(|rule| rule.need != Need::Prefer || node.spec.labels.contains_key(&rule.key));
        if self.strict && !has_all() {
            return Some(IGNORED);
        }
        let cost = rules.filter_map(|rule| {
            let weight = (rule.counts.len() as f64 + 2.0).ln();
            let alike = rule.counts.get(node.spec.labels.get(&rule.key)?).copied();
            Some(alike.unwrap_or(0) as f64 * weight + (rule.skew_max - 1) as f64)
        });
        Some(cost.sum::<f64>().round() as i64)
    }

    fn normalize(&self, scores: &mut [i64]) {
        let known = || scores.iter().copied().filter(|score| *score != IGNORED);
        let (least, most) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
        for score in scores {
            if *score == IGNORED {
                *score = 0;
                continue;
            }
            *score = if most == 0 { SCORE_MAX } else { SCORE_MAX * (most + least - *score) / most };
        }
    }
}

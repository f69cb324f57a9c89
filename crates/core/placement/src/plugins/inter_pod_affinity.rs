//! InterPodAffinity: pods that want to be near each other or apart, by the pod's own terms and by those of pods that are there.

use std::collections::{BTreeMap, BTreeSet};

use crate::affinity::Term;
use crate::plugin::{Plugin, Rejection, SCORE_MAX, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

pub const PLUGIN: Plugin =
    Plugin { name: "InterPodAffinity", weight: 2, prepare: |pod, snapshot| Box::new(Neighbours::look(pod, snapshot)) };

/// What a required affinity term of a pod that is there counts for a pod that it selects.
const REQUIRED_WEIGHT: i64 = 1;

/// The value of a topology label: a place where pods are together.
type Domain<'a> = (&'a str, &'a str);

struct Neighbours<'a> {
    pod: &'a PodInfo,
    /// Domains of pods that all required terms select.
    wanted: BTreeSet<Domain<'a>>,
    /// The first of its kind: it wants to be with pods like itself and there are none yet.
    is_first: bool,
    /// Domains with pods that a term of the pod keeps apart.
    shunned: BTreeSet<Domain<'a>>,
    /// Domains with pods that keep this one apart.
    closed: BTreeSet<Domain<'a>>,
    scores: BTreeMap<Domain<'a>, i64>,
}

impl<'a> Neighbours<'a> {
    fn look(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        let (wanted, shunned, closed, scores) = Default::default();
        let mut found = Self { pod, wanted, is_first: false, shunned, closed, scores };
        // Without terms on either side there is nothing to ask.
        let nodes = snapshot.nodes().filter(|node| !pod.terms.is_empty() || node.pods_with_terms > 0);
        for node in nodes {
            for other in &node.pods {
                found.see(node, other, snapshot);
            }
        }
        let together = &pod.terms.together;
        found.is_first = found.wanted.is_empty() && together.iter().all(|term| term.selects(pod, snapshot));
        found
    }

    fn see(&mut self, node: &'a NodeInfo, other: &'a PodInfo, snapshot: &Snapshot) {
        let (pod, mine, theirs) = (self.pod, &self.pod.terms, &other.terms);
        if !mine.together.is_empty() && mine.together.iter().all(|term| term.selects(other, snapshot)) {
            self.wanted.extend(mine.together.iter().filter_map(|term| domain(term, node)));
        }
        let shunned = mine.apart.iter().filter(|term| term.selects(other, snapshot));
        self.shunned.extend(shunned.filter_map(|term| domain(term, node)));
        let closed = theirs.apart.iter().filter(|term| term.selects(pod, snapshot));
        self.closed.extend(closed.filter_map(|term| domain(term, node)));

        let mine = mine.preferred.iter().filter(|(_, term)| term.selects(other, snapshot));
        let drawn = theirs.together.iter().map(|term| (REQUIRED_WEIGHT, term));
        let theirs = theirs.preferred.iter().map(|(weight, term)| (*weight, term)).chain(drawn);
        let theirs = theirs.filter(|(_, term)| term.selects(pod, snapshot));
        for (weight, term) in mine.map(|(weight, term)| (*weight, term)).chain(theirs) {
            if let Some(domain) = domain(term, node) {
                *self.scores.entry(domain).or_default() += weight;
            }
        }
    }
}

fn domain<'a>(term: &'a Term, node: &'a NodeInfo) -> Option<Domain<'a>> {
    node.spec.labels.get(&term.topology_key).map(|value| (term.topology_key.as_str(), value.as_str()))
}

fn is_in(domains: &BTreeSet<Domain<'_>>, node: &NodeInfo) -> bool {
    domains.iter().any(|(key, value)| node.spec.labels.get(*key).is_some_and(|has| has == value))
}

impl Verdict for Neighbours<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let is_near =
            |term: &Term| domain(term, node).is_some_and(|domain| self.is_first || self.wanted.contains(&domain));
        if !self.pod.terms.together.iter().all(is_near) {
            return Err(Rejection::final_("node(s) didn't match pod affinity rules"));
        }
        if is_in(&self.shunned, node) {
            return Err(Rejection::curable("node(s) didn't match pod anti-affinity rules"));
        }
        if is_in(&self.closed, node) {
            return Err(Rejection::curable("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    fn score(&self, node: &NodeInfo) -> Option<i64> {
        if self.scores.is_empty() {
            return None;
        }
        let here =
            self.scores.iter().filter(|((key, value), _)| node.spec.labels.get(*key).is_some_and(|v| v == value));
        Some(here.map(|(_, weight)| weight).sum())
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (least, most) = (scores.iter().min().copied().unwrap_or(0), scores.iter().max().copied().unwrap_or(0));
        for score in scores {
            *score = if most == least { 0 } else { SCORE_MAX * (*score - least) / (most - least) };
        }
    }
}

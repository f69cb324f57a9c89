//! NodeAffinity: nodeSelector and required terms must match the node, preferred terms draw the pod to it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::NodeSelectorRequirement;

use crate::plugin::{Plugin, Rejection, Verdict, scale};
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, NodeSpec};

pub const PLUGIN: Plugin = Plugin { name: "NodeAffinity", weight: 2, prepare: |pod, _| Box::new(Rule(pod)) };

/// Whether the pod may be on the node as far as its own selector and required affinity go.
pub fn selects(pod: &PodInfo, node: &NodeSpec) -> bool {
    let affinity = pod.node_affinity.as_ref();
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && required.is_none_or(|selector| nodes::selects(selector, node.traits()))
}

/// The only nodes that the required terms name, where each term names some.
pub fn named_nodes(pod: &PodInfo) -> Option<BTreeSet<&str>> {
    let affinity = pod.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut all = BTreeSet::new();
    for term in &required.node_selector_terms {
        let fields = term.match_fields.iter().flatten();
        let mut named = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
        let values = |field: &'_ NodeSelectorRequirement| field.values.clone().unwrap_or_default();
        let first = named.next()?;
        let rest: Vec<Vec<String>> = named.map(values).collect();
        let own = first.values.iter().flatten().filter(|name| rest.iter().all(|other| other.contains(name)));
        all.extend(own.map(String::as_str));
    }
    (!required.node_selector_terms.is_empty()).then_some(all)
}

struct Rule<'a>(&'a PodInfo);

impl Verdict for Rule<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if selects(self.0, &node.spec) {
            return Ok(());
        }
        Err(Rejection::final_("node(s) didn't match Pod's node affinity/selector"))
    }

    fn score(&self, node: &NodeInfo) -> Option<i64> {
        let affinity = self.0.node_affinity.as_ref()?;
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_ref()?;
        let matching = preferred.iter().filter(|term| nodes::matches(&term.preference, node.spec.traits()));
        Some(matching.map(|term| i64::from(term.weight)).sum())
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, false);
    }
}

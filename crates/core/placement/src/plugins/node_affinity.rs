//! NodeAffinity: nodeSelector and required terms must match the node, preferred terms draw the pod to it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use crate::plugin::{Plugin, Rejection, Verdict, scale};
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, NodeSpec};

pub const PLUGIN: Plugin = Plugin { name: "NodeAffinity", weight: 2, prepare: |pod, _| Box::new(Rule(pod)) };

/// Whether the pod may be on the node as far as its own selector and required affinity go.
pub fn selects(pod: &PodInfo, node: &NodeSpec) -> bool {
    let affinity = pod.node_affinity.as_ref();
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches(term, node)))
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

/// A term without requirements matches nothing.
fn matches(term: &NodeSelectorTerm, node: &NodeSpec) -> bool {
    let mut labels = term.match_expressions.iter().flatten().peekable();
    let mut fields = term.match_fields.iter().flatten().peekable();
    if labels.peek().is_none() && fields.peek().is_none() {
        return false;
    }
    labels.all(|requirement| holds(requirement, node.labels.get(&requirement.key)))
        && fields.all(|field| field.key == "metadata.name" && holds(field, Some(&node.name)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: Option<&String>| text.and_then(|text| text.parse::<i64>().ok());
    let compared = || number(value).zip(number(values.first()));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|(has, limit)| has > limit),
        "Lt" => compared().is_some_and(|(has, limit)| has < limit),
        _ => false,
    }
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
        let matching = preferred.iter().filter(|term| matches(&term.preference, &node.spec));
        Some(matching.map(|term| i64::from(term.weight)).sum())
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, false);
    }
}

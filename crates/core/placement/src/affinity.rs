//! The terms of pods about other pods, compiled once per pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm};
use meta::labels::Selector;
use serde_json::json;

use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// What one pod says about others. Required terms of affinity and anti-affinity, and preferred ones of both, where a
/// negative weight keeps apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodTerms {
    pub together: Vec<Term>,
    pub apart: Vec<Term>,
    pub preferred: Vec<(i64, Term)>,
}

/// Pods that it selects are in the same (or not in the same) domain of `topology_key`.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    pub topology_key: String,
    namespaces: Vec<String>,
    /// Selects namespaces by their labels, beside those that are named.
    namespace_selector: Option<Selector>,
    /// `None` selects nothing.
    selector: Option<Selector>,
}

impl PodTerms {
    pub fn new(affinity: Option<&Affinity>, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let mut terms = Self::default();
        let compile = |term: &PodAffinityTerm| Term::new(term, namespace, labels);
        if let Some(together) = affinity.and_then(|affinity| affinity.pod_affinity.as_ref()) {
            let required = together.required_during_scheduling_ignored_during_execution.iter().flatten();
            terms.together = required.map(compile).collect();
            let preferred = together.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            terms.preferred.extend(preferred.map(|one| (i64::from(one.weight), compile(&one.pod_affinity_term))));
        }
        if let Some(apart) = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref()) {
            let required = apart.required_during_scheduling_ignored_during_execution.iter().flatten();
            terms.apart = required.map(compile).collect();
            let preferred = apart.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            terms.preferred.extend(preferred.map(|one| (-i64::from(one.weight), compile(&one.pod_affinity_term))));
        }
        terms
    }

    pub fn is_empty(&self) -> bool {
        self.together.is_empty() && self.apart.is_empty() && self.preferred.is_empty()
    }
}

impl Term {
    /// `matchLabelKeys` and `mismatchLabelKeys` take their values from the pod's own labels. Without namespaces and
    /// without a selector of them, the pod's own namespace is meant.
    fn new(term: &PodAffinityTerm, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let selector = term.label_selector.as_ref().and_then(|selector| {
            let mut selector = selector.clone();
            let expressions = selector.match_expressions.get_or_insert_default();
            let keys = [("In", &term.match_label_keys), ("NotIn", &term.mismatch_label_keys)];
            for (operator, key) in keys.iter().flat_map(|(op, keys)| keys.iter().flatten().map(move |key| (op, key))) {
                let Some(value) = labels.get(key) else { continue };
                let expression = json!({"key": key, "operator": operator, "values": [value]});
                expressions.extend(serde_json::from_value::<_>(expression).ok());
            }
            Selector::from_label_selector(&serde_json::to_value(selector).ok()?)
        });
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        let namespace_selector = term
            .namespace_selector
            .as_ref()
            .and_then(|selector| Selector::from_label_selector(&serde_json::to_value(selector).ok()?));
        Self { topology_key: term.topology_key.clone(), namespaces, namespace_selector, selector }
    }

    pub fn selects(&self, pod: &PodInfo, snapshot: &Snapshot) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(&pod.labels))
            && (self.namespaces.contains(&pod.namespace)
                || self.namespace_selector.as_ref().is_some_and(|selector| {
                    selector.is_empty()
                        || snapshot.namespace(&pod.namespace).is_some_and(|labels| selector.matches(labels))
                }))
    }
}

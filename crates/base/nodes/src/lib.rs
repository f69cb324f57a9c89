//! Which nodes a pod or a volume may be on: node selectors, taints and tolerations.
//!
//! Placement, DaemonSets and volumes ask the same questions; the answers live here once.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};

/// What a node selector can ask about a node.
#[derive(Clone, Copy)]
pub struct Traits<'a> {
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
}

/// Whether one of the terms selects the node.
pub fn selects(selector: &NodeSelector, node: Traits<'_>) -> bool {
    selector.node_selector_terms.iter().any(|term| matches(term, node))
}

/// Whether a term selects the node: all its requirements hold. A term without requirements selects nothing.
pub fn matches(term: &NodeSelectorTerm, node: Traits<'_>) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &String| node.labels.get(key).map(String::as_str);
    (!labels.is_empty() || !fields.is_empty())
        && labels.iter().all(|requirement| holds(requirement, label(&requirement.key)))
        && fields.iter().all(|field| field.key == "metadata.name" && holds(field, Some(node.name)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|one| one == value);
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let compared = || number(value).zip(number(values.first().map(String::as_str)));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|(has, limit)| has > limit),
        "Lt" => compared().is_some_and(|(has, limit)| has < limit),
        _ => false,
    }
}

/// Whether the toleration covers the taint. An empty key or effect covers every one; `Lt` and `Gt` compare the taint's
/// value with the toleration's as numbers.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let number = |value: &Option<String>| text(value).parse::<i64>().ok();
    let covers = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|w| w.is_empty() || w == has);
    if !covers(&toleration.effect, &taint.effect) || !covers(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        Some("Lt") => number(&taint.value).zip(number(&toleration.value)).is_some_and(|(has, limit)| has < limit),
        Some("Gt") => number(&taint.value).zip(number(&toleration.value)).is_some_and(|(has, limit)| has > limit),
        _ => text(&toleration.value) == text(&taint.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(text: &str) -> NodeSelectorRequirement {
        let mut words = text.split(' ').map(str::to_owned);
        let (key, operator) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        NodeSelectorRequirement { key, operator, values: Some(words.collect()) }
    }

    #[test]
    fn terms_select_by_labels_and_names() {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("cores".to_owned(), "8".to_owned())]);
        let node = Traits { name: "n1", labels: &labels };
        let table = [
            ("zone In a b", true),
            ("zone In b", false),
            ("zone NotIn b", true),
            ("rack NotIn b", true),
            ("zone NotIn a", false),
            ("zone Exists", true),
            ("rack Exists", false),
            ("rack DoesNotExist", true),
            ("cores Gt 7", true),
            ("cores Gt 8", false),
            ("cores Lt 9", true),
            ("zone Gt 1", false),
            ("zone Unheard", false),
        ];
        for (text, expected) in table {
            let term = NodeSelectorTerm { match_expressions: Some(vec![requirement(text)]), match_fields: None };
            assert_eq!(matches(&term, node), expected, "{text}");
        }
        let named =
            |text: &str| NodeSelectorTerm { match_expressions: None, match_fields: Some(vec![requirement(text)]) };
        assert!(matches(&named("metadata.name In n1"), node));
        assert!(!matches(&named("metadata.name In n2"), node));
        assert!(!matches(&NodeSelectorTerm::default(), node), "a term that asks nothing selects nothing");
        let either =
            NodeSelector { node_selector_terms: vec![named("metadata.name In n2"), named("metadata.name In n1")] };
        assert!(selects(&either, node));
    }

    #[test]
    fn tolerations_cover_taints() {
        let taint = |text: &str| {
            let mut words = text.split(' ').map(str::to_owned);
            let mut next = || words.next().unwrap_or_default();
            Taint { key: next(), value: Some(next()), effect: next(), ..Taint::default() }
        };
        let toleration = |text: &str| {
            let mut words = text.split(' ').map(|word| (word != "-").then(|| word.to_owned()));
            let mut next = || words.next().flatten();
            Toleration { key: next(), operator: next(), value: next(), effect: next(), ..Toleration::default() }
        };
        let table = [
            ("- Exists - -", "gpu yes NoSchedule", true),
            ("gpu Exists - -", "gpu yes NoExecute", true),
            ("gpu Exists - NoSchedule", "gpu yes NoExecute", false),
            ("gpu Equal yes -", "gpu yes NoSchedule", true),
            ("gpu - yes -", "gpu yes NoSchedule", true),
            ("gpu Equal no -", "gpu yes NoSchedule", false),
            ("disk Exists - -", "gpu yes NoSchedule", false),
            ("age Lt 5 -", "age 3 NoSchedule", true),
            ("age Gt 5 -", "age 3 NoSchedule", false),
            ("age Lt 5 -", "age old NoSchedule", false),
        ];
        for (one, other, expected) in table {
            assert_eq!(tolerates(&toleration(one), &taint(other)), expected, "{one} / {other}");
        }
    }
}

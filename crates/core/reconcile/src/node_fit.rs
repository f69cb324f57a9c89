//! Whether a node is one that a pod template asks for: nodeName, nodeSelector, required affinity, taints.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

/// What a node is to a DaemonSet's pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The pod belongs there.
    Run,
    /// One that is there already may stay: only a NoSchedule taint is in the way.
    Stay,
    /// The pod does not belong there.
    Leave,
}

/// `tolerations` are the pod's with those that its owner adds.
pub(crate) fn fit(spec: &PodSpec, tolerations: &[Toleration], node: &Node) -> Fit {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let elsewhere = spec.node_name.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != name);
    if elsewhere || !is_selected(spec, node) {
        return Fit::Leave;
    }
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut untolerated = taints.filter(|taint| !tolerations.iter().any(|known| tolerates(known, taint))).peekable();
    if untolerated.clone().any(|taint| taint.effect == "NoExecute") {
        return Fit::Leave;
    }
    if untolerated.any(|taint| taint.effect == "NoSchedule") { Fit::Stay } else { Fit::Run }
}

fn is_selected(spec: &PodSpec, node: &Node) -> bool {
    let label = |key: &String| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    spec.node_selector.iter().flatten().all(|(key, value)| label(key) == Some(value))
        && required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches(term, node)))
}

/// A term without requirements matches nothing.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &String| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    (!labels.is_empty() || !fields.is_empty())
        && labels.iter().all(|requirement| holds(requirement, label(&requirement.key)))
        && fields.iter().all(|field| field.key == "metadata.name" && holds(field, node.metadata.name.as_ref()))
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

/// Whether a toleration covers a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let number = |text: &Option<String>| text.as_deref().unwrap_or_default().parse::<i64>().ok();
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        Some("Lt") => number(&taint.value).zip(number(&toleration.value)).is_some_and(|(has, limit)| has < limit),
        Some("Gt") => number(&taint.value).zip(number(&toleration.value)).is_some_and(|(has, limit)| has > limit),
        _ => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
    }
}

//! Whether a node is one that a pod template asks for: nodeName, nodeSelector, required affinity, taints.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, PodSpec, Toleration};
use nodes::{Traits, tolerates};

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
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&NONE);
    let traits = Traits { name: node.metadata.name.as_deref().unwrap_or_default(), labels };
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
        && required.is_none_or(|selector| nodes::selects(selector, traits))
}

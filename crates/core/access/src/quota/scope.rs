//! The scopes of a quota: which pods and claims it counts.

use kinds::core::qos_class;
use serde_json::Value;

use crate::admission::json::{list, text};

/// One demand of a quota: a scope, and for selectors how its values compare.
struct Demand<'a> {
    scope: &'a str,
    operator: &'a str,
    values: &'a [Value],
}

fn demands(spec: &Value) -> impl Iterator<Item = Demand<'_>> {
    let plain = list(spec, "scopes").iter().filter_map(Value::as_str);
    let plain = plain.map(|scope| Demand { scope, operator: "Exists", values: &[] });
    let selected = list(&spec["scopeSelector"], "matchExpressions").iter();
    plain.chain(selected.map(|one| Demand {
        scope: text(one, "scopeName"),
        operator: text(one, "operator"),
        values: list(one, "values"),
    }))
}

/// Whether a pod falls under all scopes of the quota's `spec`.
pub(super) fn holds_for_pod(spec: &Value, pod: &Value) -> bool {
    demands(spec).all(|demand| match demand.scope {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            let class = text(&pod["spec"], "priorityClassName");
            demand.matches(Some(class).filter(|class| !class.is_empty()))
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    })
}

/// Whether a claim falls under all scopes; only VolumeAttributesClass counts claims.
pub(super) fn holds_for_claim(spec: &Value, claim: &Value) -> bool {
    let names = [
        text(&claim["spec"], "volumeAttributesClassName"),
        text(&claim["status"], "currentVolumeAttributesClassName"),
        text(&claim["status"]["modifyVolumeStatus"], "targetVolumeAttributesClassName"),
    ];
    let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    demands(spec).all(|demand| {
        let any = names.iter().any(|name| demand.matches(Some(name)));
        demand.scope == "VolumeAttributesClass" && (any || names.is_empty() && demand.matches(None))
    })
}

/// Objects of other kinds have no scopes: a quota with any does not count them.
pub(super) fn has_none(spec: &Value) -> bool {
    demands(spec).next().is_none()
}

impl Demand<'_> {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = value.is_some_and(|value| self.values.iter().any(|one| one == value));
        match self.operator {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

/// A pod with a deadline ends by itself.
pub(super) fn is_terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

fn is_best_effort(pod: &Value) -> bool {
    match text(&pod["status"], "qosClass") {
        "" => qos_class(&pod["spec"]) == "BestEffort",
        class => class == "BestEffort",
    }
}

fn crosses_namespaces(pod: &Value) -> bool {
    let crosses = |term: &Value| !list(term, "namespaces").is_empty() || term["namespaceSelector"].is_object();
    ["podAffinity", "podAntiAffinity"].iter().map(|kind| &pod["spec"]["affinity"][*kind]).any(|affinity| {
        list(affinity, "requiredDuringSchedulingIgnoredDuringExecution").iter().any(crosses)
            || list(affinity, "preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|one| crosses(&one["podAffinityTerm"]))
    })
}

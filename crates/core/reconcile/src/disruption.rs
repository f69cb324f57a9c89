//! PodDisruptionBudgets: how many of the selected pods are healthy, how many must be, and so how many may go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meta::intstr;
use serde_json::json;

use crate::PodView;
use crate::conditions::seconds;
use crate::ownership::{reference, selector_of};
use crate::plan::{DISRUPTION_BUDGETS, Note, Op, PODS, PatchKind, Plan, difference, to_value};

/// An evicted pod that is not told to end after so long is believed to stay.
const DELETION_WITHIN: SignedDuration = SignedDuration::from_mins(2);
/// A pod that was promised to end and was not told to after so long is told that it stays.
const DISRUPTION_WITHIN: SignedDuration = SignedDuration::from_mins(2);
const CONDITION: &str = "DisruptionAllowed";

/// Pods that the controllers of the selected ones are to have in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// Replicas by the uid of the controller whose scale it is.
    pub controllers: BTreeMap<String, i32>,
    /// A pod has no controller.
    pub unmanaged: bool,
}

/// Whether the budget selects the pod; one without a selector selects none.
pub fn selects(budget: &PodDisruptionBudget, pod: &PodView) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| selector_of(spec.selector.as_ref()?));
    budget.metadata.namespace.as_deref() == Some(&pod.namespace)
        && selector.is_some_and(|selector| selector.matches(&*pod.labels))
}

/// Whether the budget is a share of what the controllers are to have, so that their scales have to be known.
pub fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    budget.spec.as_ref().is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// Whether the status could not be known when it was last looked at.
pub fn is_failed(budget: &PodDisruptionBudget) -> bool {
    let conditions = budget.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == CONDITION && condition.reason == "SyncFailed")
}

/// The status due for what is observed now. `pods` are those that the budget selects.
pub fn plan(budget: &PodDisruptionBudget, pods: &[Arc<PodView>], scale: &Scale, now: Timestamp) -> Plan {
    let (mut plan, about) = (Plan::default(), reference(DISRUPTION_BUDGETS, &budget.metadata));
    let spec = budget.spec.clone().unwrap_or_default();
    if pods.is_empty() {
        plan.notes.push(Note::normal(&about, "NoPods", "No matching pods found"));
    }
    if scale.unmanaged {
        plan.notes.push(Note::warning(&about, "UnmanagedPods", unmanaged(spec.selector.as_ref())));
    }
    let (expected, desired) = match counts(&spec, pods.len(), scale) {
        Ok(counts) => counts,
        Err(why) => {
            let text = format!("Failed to calculate the number of expected pods: {why}");
            plan.notes.push(Note::warning(&about, "CalculateExpectedPodCountFailed", text));
            plan.steps = fail_safe(budget, &why, now).steps;
            return plan;
        }
    };
    let disrupted = disrupted(&mut plan, budget, pods, now);
    let healthy = pods.iter().filter(|pod| pod.deletion.is_none() && pod.ready && !disrupted.contains_key(&pod.name));
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let allowed = if expected <= 0 { 0 } else { healthy.saturating_sub(desired).max(0) };
    let old = budget.status.clone().unwrap_or_default();
    let mut status = PodDisruptionBudgetStatus {
        conditions: old.conditions.clone(),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    };
    let (value, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set_condition(&mut status, value, reason, "", now);
    write(&mut plan, budget, &old, &status);
    plan
}

/// When the status cannot be known, nothing may be evicted; the condition says why.
pub fn fail_safe(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let old = budget.status.clone().unwrap_or_default();
    let mut status = PodDisruptionBudgetStatus { disruptions_allowed: Some(0), ..old.clone() };
    set_condition(&mut status, "False", "SyncFailed", why, now);
    write(&mut plan, budget, &old, &status);
    plan
}

/// What a failure to learn the scale is told as, beside [`fail_safe`].
pub fn scale_failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> Plan {
    let mut plan = fail_safe(budget, why, now);
    let text = format!("Failed to calculate the number of expected pods: {why}");
    let about = reference(DISRUPTION_BUDGETS, &budget.metadata);
    plan.notes.push(Note::warning(&about, "CalculateExpectedPodCountFailed", text));
    plan
}

/// Pods expected, and pods that must be healthy.
fn counts(spec: &PodDisruptionBudgetSpec, pods: usize, scale: &Scale) -> Result<(i32, i32), String> {
    let pods = i32::try_from(pods).unwrap_or(i32::MAX);
    let replicas = scale.controllers.values().fold(0_i32, |sum, replicas| sum.saturating_add(*replicas));
    let part = |value: &IntOrString| {
        let scaled = intstr::scaled(&to_value(value), i64::from(replicas), true);
        let why = "invalid type: string is not a percentage";
        scaled
            .map(|part| i32::try_from(part).unwrap_or(i32::MAX))
            .ok_or_else(|| format!("invalid value for IntOrString: {why}"))
    };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(max), _) => Ok((replicas, replicas.saturating_sub(part(max)?).max(0))),
        (None, Some(IntOrString::Int(min))) => Ok((pods, *min)),
        (None, Some(min)) => Ok((replicas, part(min)?)),
        (None, None) => Ok((0, 0)),
    }
}

/// Evicted pods that are not told to end yet: they count as gone, for a while.
fn disrupted(
    plan: &mut Plan,
    budget: &PodDisruptionBudget,
    pods: &[Arc<PodView>],
    now: Timestamp,
) -> BTreeMap<String, Time> {
    let known = budget.status.as_ref().and_then(|status| status.disrupted_pods.clone()).unwrap_or_default();
    let mut kept = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.deletion.is_none()) {
        let Some(time) = known.get(&pod.name) else { continue };
        let left = time.0.saturating_add(DELETION_WITHIN).map_or(SignedDuration::ZERO, |end| end.duration_since(now));
        if left.is_negative() {
            let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
            let name = budget.metadata.name.as_deref().unwrap_or_default();
            let text = format!("Pod was expected by PDB {namespace}/{name} to be deleted but it wasn't");
            plan.notes.push(Note::warning(&about_pod(pod), "NotDeleted", text));
            continue;
        }
        plan.requeue(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1));
        kept.insert(pod.name.clone(), time.clone());
    }
    kept
}

fn about_pod(pod: &PodView) -> ObjectReference {
    ObjectReference {
        api_version: Some(PODS.api_version.to_owned()),
        kind: Some(PODS.kind.to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        resource_version: Some(pod.resource_version.clone()),
        field_path: None,
    }
}

fn set_condition(status: &mut PodDisruptionBudgetStatus, value: &str, reason: &str, message: &str, now: Timestamp) {
    let mut condition = Condition {
        type_: CONDITION.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: status.observed_generation,
        last_transition_time: seconds(now),
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|known| known.type_ == CONDITION) {
        Some(known) => {
            if known.status == condition.status {
                condition.last_transition_time = known.last_transition_time.clone();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
}

/// Bound to the revision that was looked at: an eviction in between has taken its share, which must not be given back.
fn write(
    plan: &mut Plan,
    budget: &PodDisruptionBudget,
    old: &PodDisruptionBudgetStatus,
    new: &PodDisruptionBudgetStatus,
) {
    let Some(difference) = difference(old, new) else { return };
    let meta = &budget.metadata;
    let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let body = json!({ "metadata": { "resourceVersion": meta.resource_version }, "status": difference });
    let (resource, kind) = (DISRUPTION_BUDGETS, PatchKind::Update);
    plan.push(Op::Patch { resource, namespace, name, subresource: Some("status"), kind, body });
}

/// A pod that was promised to end (condition DisruptionTarget) and is still not told to: the promise is taken back.
pub fn stale_disruption(pod: &PodView, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(since) = pod.disruption.filter(|_| pod.is_active()) else { return plan };
    let end = since.saturating_add(DISRUPTION_WITHIN).unwrap_or(now);
    let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
    if !left.is_zero() {
        plan.requeue(left);
        return plan;
    }
    let condition = json!({ "type": "DisruptionTarget", "status": "False", "reason": null, "message": null,
        "lastTransitionTime": to_value(&seconds(now)) });
    let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
    let body = json!({ "metadata": { "uid": pod.uid }, "status": { "conditions": [condition] } });
    let kind = PatchKind::Strategic;
    plan.push(Op::Patch { resource: PODS, namespace, name, subresource: Some("status"), kind, body });
    plan
}

fn unmanaged(selector: Option<&LabelSelector>) -> String {
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of \
         the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please \
         set \".spec.minAvailable\" field of the PDB to an integer value.",
        selector_text(selector)
    )
}

/// A selector as upstream prints it in this event.
fn selector_text(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},"));
    let expressions = selector.match_expressions.iter().flatten().map(|expression| {
        let values = expression.values.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
        let (key, operator) = (&expression.key, &expression.operator);
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    });
    let (labels, expressions) = (labels.collect::<String>(), expressions.collect::<String>());
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({
            "metadata": { "name": "b", "namespace": "a", "uid": "b", "resourceVersion": "7", "generation": 2 },
            "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn pods(ready: usize, unready: usize) -> Vec<Arc<PodView>> {
        let pod = |number: usize| PodView {
            namespace: "a".into(),
            name: format!("p{number}"),
            uid: format!("p{number}"),
            ready: number < ready,
            phase: "Running",
            ..PodView::default()
        };
        (0..ready + unready).map(|number| Arc::new(pod(number))).collect()
    }

    /// `healthy/desired of expected, allowed` and the condition.
    fn written(plan: &Plan) -> String {
        let Some(Op::Patch { body, .. }) = plan.steps.first().map(|step| &step.op) else { return String::new() };
        assert_eq!(body["metadata"]["resourceVersion"], "7");
        let status = &body["status"];
        let condition = &status["conditions"][0];
        format!(
            "{}/{} of {}, {} {}",
            status["currentHealthy"],
            status["desiredHealthy"],
            status["expectedPods"],
            status["disruptionsAllowed"],
            condition["reason"].as_str().unwrap_or("-")
        )
    }

    #[test]
    fn numbers_and_shares_follow_the_pods_and_their_controllers() {
        let scale = |replicas: i32| Scale { controllers: [("c".to_owned(), replicas)].into(), unmanaged: false };
        for (spec, ready, unready, replicas, expected) in [
            (json!({ "minAvailable": 2 }), 3, 0, 0, "3/2 of 3, 1 SufficientPods"),
            (json!({ "minAvailable": 2 }), 1, 2, 0, "1/2 of 3, 0 InsufficientPods"),
            (json!({ "minAvailable": 0 }), 0, 0, 0, "0/0 of 0, 0 InsufficientPods"),
            (json!({ "minAvailable": "50%" }), 3, 0, 5, "3/3 of 5, 0 InsufficientPods"),
            (json!({ "minAvailable": "28%" }), 7, 0, 7, "7/2 of 7, 5 SufficientPods"),
            (json!({ "maxUnavailable": 1 }), 4, 0, 5, "4/4 of 5, 0 InsufficientPods"),
            (json!({ "maxUnavailable": "30%" }), 5, 0, 5, "5/3 of 5, 2 SufficientPods"),
            (json!({ "maxUnavailable": 9 }), 5, 0, 5, "5/0 of 5, 5 SufficientPods"),
        ] {
            let status =
                json!({ "currentHealthy": 99, "desiredHealthy": 99, "disruptionsAllowed": 99, "expectedPods": 99 });
            let plan = plan(&budget(spec.clone(), status), &pods(ready, unready), &scale(replicas), at(0));
            assert_eq!(written(&plan), expected, "{spec}");
        }
    }

    #[test]
    fn evicted_pods_count_as_gone_for_two_minutes() {
        let status = json!({ "currentHealthy": 99, "desiredHealthy": 99, "disruptionsAllowed": 99, "expectedPods": 99,
            "disruptedPods": { "p0": "1970-01-01T00:16:40Z", "gone": "1970-01-01T00:16:40Z" } });
        let budget = budget(json!({ "minAvailable": 1 }), status);
        let early = plan(&budget, &pods(3, 0), &Scale::default(), at(1060));
        assert_eq!(written(&early), "2/1 of 3, 1 SufficientPods");
        assert_eq!(early.requeue_after, Some(Duration::from_secs(61)));
        let late = plan(&budget, &pods(3, 0), &Scale::default(), at(1121));
        assert_eq!(written(&late), "3/1 of 3, 2 SufficientPods");
        assert_eq!((late.notes[0].reason, late.requeue_after), ("NotDeleted", None));
    }

    #[test]
    fn a_status_that_holds_is_not_written_again() {
        let mut budget = budget(json!({ "minAvailable": 1 }), Value::Null);
        let first = plan(&budget, &pods(2, 0), &Scale::default(), at(5));
        let Op::Patch { body, .. } = &first.steps[0].op else { panic!() };
        let mut status = to_value(&PodDisruptionBudgetStatus::default());
        crate::plan::merge(&mut status, &body["status"]);
        budget.status = serde_json::from_value(status).unwrap();
        assert!(plan(&budget, &pods(2, 0), &Scale::default(), at(6)).is_empty());
        let failed = fail_safe(&budget, "no scale", at(9));
        let Op::Patch { body, .. } = &failed.steps[0].op else { panic!() };
        let condition = &body["status"]["conditions"][0];
        assert_eq!((&condition["reason"], &condition["message"]), (&json!("SyncFailed"), &json!("no scale")));
    }

    #[test]
    fn promises_of_disruption_are_taken_back() {
        let pod = PodView { disruption: Some(at(0)), phase: "Running", ..PodView::default() };
        assert_eq!(stale_disruption(&pod, at(20)).requeue_after, Some(Duration::from_secs(100)));
        assert_eq!(stale_disruption(&pod, at(120)).steps.len(), 1);
        assert_eq!(stale_disruption(&PodView { deletion: Some(at(1)), ..pod }, at(120)), Plan::default());
    }
}

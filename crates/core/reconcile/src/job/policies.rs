//! What a Job's podFailurePolicy says of a failed pod, and whether its successPolicy is met.

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicy,
};

use super::facts::JobFacts;
use super::indexes::Indexes;
use crate::PodView;

/// What a failure means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The whole Job fails, for this reason.
    pub fails_job: Option<String>,
    /// The pod's index fails.
    pub fails_index: bool,
    /// It does not count towards the backoff limits.
    pub ignored: bool,
}

/// What the first matching rule says; without one, the failure counts.
pub fn judge(policy: Option<&PodFailurePolicy>, pod: &PodView) -> Verdict {
    let facts = super::facts(pod);
    for (index, rule) in policy.iter().flat_map(|policy| &policy.rules).enumerate() {
        let Some(why) = matched(rule, pod, facts) else { continue };
        match rule.action.as_str() {
            "Ignore" => return Verdict { ignored: true, ..Verdict::default() },
            "FailIndex" => return Verdict { fails_index: true, ..Verdict::default() },
            "Count" => return Verdict::default(),
            "FailJob" => {
                let message = format!("{why} matching FailJob rule at index {index}");
                return Verdict { fails_job: Some(message), ..Verdict::default() };
            }
            _ => {}
        }
    }
    Verdict::default()
}

/// How the pod matches the rule, in the words that the Job's condition shows.
fn matched(rule: &PodFailurePolicyRule, pod: &PodView, facts: &JobFacts) -> Option<String> {
    let (namespace, name) = (&pod.namespace, &pod.name);
    if let Some(wanted) = &rule.on_exit_codes {
        let (container, code) = facts.exits.iter().find(|(container, code)| has_code(wanted, container, *code))?;
        return Some(format!("Container {container} for pod {namespace}/{name} failed with exit code {code}"));
    }
    let patterns = rule.on_pod_conditions.as_ref()?;
    let (condition, _) = facts.conditions.iter().find(|(kind, status)| {
        let is = |wanted: Option<&str>| wanted.unwrap_or("True") == status;
        patterns.iter().any(|wanted| wanted.type_ == *kind && is(wanted.status.as_deref()))
    })?;
    Some(format!("Pod {namespace}/{name} has condition {condition}"))
}

fn has_code(wanted: &PodFailurePolicyOnExitCodesRequirement, container: &str, code: i32) -> bool {
    let right_one = wanted.container_name.as_deref().is_none_or(|name| name == container);
    right_one
        && match wanted.operator.as_str() {
            "In" => wanted.values.contains(&code),
            "NotIn" => !wanted.values.contains(&code),
            _ => false,
        }
}

/// The message of the rule that the succeeded indexes meet.
pub fn success(policy: Option<&SuccessPolicy>, completions: i64, succeeded: &Indexes) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let met = policy?.rules.iter().position(|rule| {
        let count = rule.succeeded_count.map(i64::from);
        match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = Indexes::parse(text, completions);
                let common = wanted.common(succeeded);
                !wanted.is_empty() && (common == wanted.len() || count.is_some_and(|count| common >= count))
            }
            None => count.is_some_and(|count| succeeded.len() >= count),
        }
    })?;
    Some(format!("Matched rules at index {met}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judged(rules: Value, exits: &[(&str, i32)]) -> Verdict {
        let policy: PodFailurePolicy = serde_json::from_value(json!({ "rules": rules })).unwrap();
        let facts = JobFacts {
            exits: exits.iter().map(|(name, code)| ((*name).to_owned(), *code)).collect(),
            conditions: vec![("DisruptionTarget".to_owned(), "True".to_owned())],
            ..JobFacts::default()
        };
        let pod = PodView { namespace: "a".into(), name: "p".into(), job: Some(facts.into()), ..PodView::default() };
        judge(Some(&policy), &pod)
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let on = |action: &str, operator: &str, values: &[i32]| json!({ "action": action, "onExitCodes": { "operator": operator, "values": values } });
        let disrupted =
            json!({ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] });
        let failed = judged(json!([on("Ignore", "In", &[1]), on("FailJob", "In", &[42])]), &[("c", 42)]);
        let why = "Container c for pod a/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(failed.fails_job.as_deref(), Some(why));
        assert!(judged(json!([disrupted, on("FailJob", "In", &[42])]), &[("c", 42)]).ignored);
        assert!(judged(json!([on("FailIndex", "NotIn", &[3])]), &[("c", 42)]).fails_index);
        assert_eq!(judged(json!([on("Count", "In", &[42]), disrupted]), &[("c", 42)]), Verdict::default());
        assert_eq!(judged(json!([on("FailJob", "In", &[42])]), &[("c", 1)]), Verdict::default());
        let mut named = on("FailJob", "In", &[42]);
        named["onExitCodes"]["containerName"] = "d".into();
        assert_eq!(judged(json!([named.clone()]), &[("c", 42)]), Verdict::default());
        assert!(judged(json!([named]), &[("c", 42), ("d", 42)]).fails_job.is_some());
        let condition =
            json!({ "action": "FailJob", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] });
        let why = "Pod a/p has condition DisruptionTarget matching FailJob rule at index 0";
        assert_eq!(judged(json!([condition]), &[]).fails_job.as_deref(), Some(why));
    }

    #[test]
    fn success_by_indexes_by_count_and_by_both() {
        let met = |rule: Value, succeeded: &str| {
            let policy: SuccessPolicy =
                serde_json::from_value(json!({ "rules": [{ "succeededCount": 99 }, rule] })).unwrap();
            success(Some(&policy), 10, &Indexes::parse(succeeded, 10))
                .is_some_and(|why| why == "Matched rules at index 1")
        };
        assert!(met(json!({ "succeededCount": 2 }), "1,5"));
        assert!(!met(json!({ "succeededCount": 3 }), "1,5"));
        assert!(met(json!({ "succeededIndexes": "0,2-3" }), "0-5"));
        assert!(!met(json!({ "succeededIndexes": "0,2-3" }), "0-2"));
        assert!(met(json!({ "succeededIndexes": "0,2-3", "succeededCount": 2 }), "0-2"));
        assert!(!met(json!({ "succeededIndexes": "50", "succeededCount": 0 }), "0-2"));
        assert!(!met(json!({ "succeededCount": 0 }), ""));
    }
}

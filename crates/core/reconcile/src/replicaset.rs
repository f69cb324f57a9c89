//! ReplicaSet and ReplicationController: keep the wanted number of pods, delete the least valuable first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::ReplicationController;
use serde_json::Value;

use crate::conditions::{seconds, set_replicaset_condition};
use crate::ownership::{Claim, Owner, reference, selector_of};
use crate::plan::{Note, Op, PODS, Plan, REPLICA_SETS, REPLICATION_CONTROLLERS, Resource, Step, difference, to_value};
use crate::pod::PodView;
use crate::pod_template::pod_of;

/// Pods created or deleted in one reconcile; the rest follows in the next (upstream: burstReplicas).
pub const BURST_PODS_MAX: usize = 500;

/// A ReplicationController in the shape of a ReplicaSet: the same rules hold for both.
pub fn from_replication_controller(controller: &ReplicationController) -> ReplicaSet {
    let spec = controller.spec.clone().unwrap_or_default();
    let selector = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector {
        match_labels: spec.selector,
        match_expressions: None,
    };
    // Statuses agree field by field, and so do their conditions.
    let status = controller.status.as_ref().and_then(|status| serde_json::from_value(to_value(status)).ok());
    ReplicaSet {
        metadata: controller.metadata.clone(),
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: spec.replicas,
            selector,
            template: spec.template,
        }),
        status,
    }
}

fn owner_of(resource: Resource, set: &ReplicaSet) -> Owner {
    let selector = set.spec.as_ref().and_then(|spec| selector_of(&spec.selector)).filter(|s| !s.is_empty());
    Owner::new(resource, &set.metadata, selector)
}

/// What one look at the pods tells: adoptions and releases due, and the counts of what is owned.
#[derive(Debug, Default)]
pub struct Survey {
    patches: Vec<Op>,
    active: usize,
    ready: usize,
    available: usize,
    labelled: usize,
    terminating: usize,
    /// When the next ready pod becomes available.
    next_available: Option<Timestamp>,
}

/// Looks at each pod once, and keeps none: a set has thousands of them. `owned` are those whose controlling owner has the
/// uid of the set, `orphans` those of its namespace that nobody controls.
pub fn survey<'a>(
    resource: Resource,
    set: &ReplicaSet,
    owned: impl IntoIterator<Item = &'a PodView>,
    orphans: impl IntoIterator<Item = &'a PodView>,
    now: Timestamp,
) -> Survey {
    let (owner, spec) = (owner_of(resource, set), set.spec.as_ref());
    let min_ready = min_ready(set);
    let wanted = spec.and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.as_ref());
    let mut survey = Survey::default();
    // Finished pods are neither adopted nor released; what they were stays readable on them.
    let mut judge = |pod: &PodView| match owner.judge(PODS, pod) {
        Claim::Patch(patch) if !pod.is_finished() => survey.patches.push(patch),
        _ => {}
    };
    orphans.into_iter().for_each(&mut judge);
    // Pods of one template share their labels, so that those of the pod before say it all: matched, and as in the template.
    let mut last: Option<(&Arc<BTreeMap<String, String>>, bool, bool)> = None;
    for pod in owned {
        let (matches, labelled) = match last {
            Some((labels, matches, labelled)) if Arc::ptr_eq(labels, &pod.labels) => (matches, labelled),
            _ => {
                let has = |(key, value): (&String, &String)| pod.labels.get(key) == Some(value);
                (owner.selects(&*pod.labels), wanted.into_iter().flatten().all(has))
            }
        };
        last = Some((&pod.labels, matches, labelled));
        if !matches {
            judge(pod);
            continue;
        }
        if !pod.is_active() {
            survey.terminating += usize::from(!pod.is_finished());
            continue;
        }
        survey.active += 1;
        survey.labelled += usize::from(labelled);
        survey.ready += usize::from(pod.ready);
        if pod.is_available(min_ready, now) {
            survey.available += 1;
        } else {
            survey.next_available = pod.available_at(min_ready).into_iter().chain(survey.next_available).min();
        }
    }
    survey
}

fn min_ready(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

/// What to create, delete, adopt and release. Only scaling down asks for the pods that are `owned` and for `related`, the
/// active pods per node over all sets of the same owner: it thins out the fullest nodes first.
pub fn plan(
    resource: Resource,
    set: &ReplicaSet,
    owned: impl FnOnce() -> Vec<Arc<PodView>>,
    survey: &Survey,
    related: impl FnOnce() -> HashMap<String, usize>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    plan.steps.extend(survey.patches.iter().cloned().map(Step::from));
    // An adoption changes what is owned: look again when the cache shows it.
    if !plan.steps.is_empty() || set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let wanted = usize::try_from(replicas).unwrap_or(0);
    let about = reference(resource, &set.metadata);
    if survey.active < wanted {
        let missing = (wanted - survey.active).min(BURST_PODS_MAX);
        let pod = new_pod(resource, set);
        let namespace = set.metadata.namespace.clone().unwrap_or_default();
        plan.batch = (0..missing)
            .map(|_| {
                Step::from(Op::Create { resource: PODS, namespace: namespace.clone(), object: pod.clone() })
                    .on_success(Note::normal(&about, "SuccessfulCreate", "Created pod: {name}"))
                    .on_failure(Note::warning(&about, "FailedCreate", "Error creating: {error}"))
            })
            .collect();
    } else if survey.active > wanted {
        let surplus = (survey.active - wanted).min(BURST_PODS_MAX);
        let owned = owned();
        let active = owned.iter().filter(|pod| pod.is_active()).collect();
        plan.batch = ranked_for_deletion(active, &related(), min_ready(set), now)
            .into_iter()
            .take(surplus)
            .map(|pod| {
                let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
                let done = format!("Deleted pod: {name}");
                let failed = "Error deleting: {error}";
                let uid = Some(pod.uid.clone());
                Step::from(Op::Delete { resource: PODS, namespace, name, uid, grace: None })
                    .on_success(Note::normal(&about, "SuccessfulDelete", done))
                    .on_failure(Note::warning(&about, "FailedDelete", failed))
            })
            .collect();
    }
    plan
}

/// The pod of the template: owned, named by the server from the set's name.
fn new_pod(resource: Resource, set: &ReplicaSet) -> Value {
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_of(&template, &owner_of(resource, set));
    pod["metadata"]["generateName"] = format!("{name}-").into();
    pod
}

/// Least valuable first: not assigned, Pending, not ready, cheap to delete, on crowded nodes, ready for a short time,
/// restarting often, young (the order that the Kubernetes documentation states for scale-down). Pods that are ready and
/// not yet available go before those that are, whatever else they are worth: a Deployment that takes what does not
/// serve away counts on it.
fn ranked_for_deletion<'a>(
    mut pods: Vec<&'a Arc<PodView>>,
    related: &HashMap<String, usize>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Vec<&'a Arc<PodView>> {
    let phase = |pod: &PodView| match pod.phase {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    // Ages count in powers of two, so that small differences do not decide over placement.
    let magnitude = |since: Option<Timestamp>| match since {
        None => 0,
        Some(since) => 64 - (now.as_second() - since.as_second()).max(0).leading_zeros() as i32,
    };
    pods.sort_by_cached_key(|pod| {
        let crowd = if pod.node.is_empty() { 0 } else { related.get(&pod.node).copied().unwrap_or(0) };
        (
            !pod.node.is_empty(),
            phase(pod),
            pod.ready,
            pod.is_available(min_ready_seconds, now),
            pod.deletion_cost,
            Reverse(crowd),
            if pod.ready { magnitude(pod.ready_since) } else { 0 },
            Reverse(pod.restarts),
            magnitude(pod.created),
            pod.uid.clone(),
        )
    });
    pods
}

/// The status patch due for what is observed now; `failure` is reason and message when the last batch failed.
pub fn status(
    resource: Resource,
    set: &ReplicaSet,
    survey: &Survey,
    failure: Option<(&str, &str)>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let old = set.status.clone().unwrap_or_default();
    let count = |pods: usize| i32::try_from(pods).unwrap_or(i32::MAX);
    let mut conditions = old.conditions.clone().unwrap_or_default();
    match failure {
        Some((reason, message)) => {
            let condition = ReplicaSetCondition {
                type_: "ReplicaFailure".into(),
                status: "True".into(),
                reason: Some(reason.into()),
                message: Some(message.into()),
                last_transition_time: Some(seconds(now)),
            };
            set_replicaset_condition(&mut conditions, condition);
        }
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
    }
    let non_zero = |pods: usize| (pods != 0).then_some(count(pods));
    let new = ReplicaSetStatus {
        replicas: count(survey.active),
        ready_replicas: non_zero(survey.ready),
        available_replicas: non_zero(survey.available),
        fully_labeled_replicas: non_zero(survey.labelled),
        terminating_replicas: (resource == REPLICA_SETS).then(|| count(survey.terminating)),
        observed_generation: set.metadata.generation.or(old.observed_generation),
        conditions: (!conditions.is_empty()).then_some(conditions),
    };
    if let Some(patch) = difference(&old, &new) {
        let (namespace, name) = (&set.metadata.namespace, &set.metadata.name);
        let (namespace, name) = (namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default());
        plan.push(Op::update_status(resource, namespace, name, patch));
    }
    // A ready pod becomes available by time alone.
    if let Some(next) = survey.next_available {
        let wait = next.duration_since(now);
        plan.requeue(Duration::try_from(wait).unwrap_or_default() + Duration::from_millis(10));
    }
    plan
}

/// Whether a resource's objects are handled here.
pub fn handles(resource: Resource) -> bool {
    resource == REPLICA_SETS || resource == REPLICATION_CONTROLLERS
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({ "metadata": { "name": "s", "namespace": "a", "uid": "s" },
            "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": "x" } },
                "template": { "metadata": { "labels": { "app": "x" } }, "spec": { "containers": [] } } } }))
        .unwrap()
    }

    fn pod(name: &str, owner: Option<&str>, label: &str) -> PodView {
        let owner = owner.map(|uid| Owner { uid: uid.into(), ..owner_of(REPLICA_SETS, &set(1)) }.reference());
        PodView {
            namespace: "a".into(),
            name: name.into(),
            uid: name.into(),
            node: "n".into(),
            phase: "Running",
            labels: Arc::new([("app".to_owned(), label.to_owned())].into()),
            owners: owner.into_iter().collect(),
            created: Some(at(0)),
            ..PodView::default()
        }
    }

    /// What a plan does, in words.
    fn told(plan: &Plan) -> Vec<String> {
        let steps = plan.steps.iter().chain(&plan.batch).map(|step| match &step.op {
            Op::Create { .. } => "create".to_owned(),
            Op::Delete { name, .. } => format!("delete {name}"),
            Op::Patch { name, body, .. } => {
                let owners = body["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len);
                format!("{name} has {owners} owners")
            }
        });
        steps.collect()
    }

    fn planned_for(set: &ReplicaSet, pods: &[Arc<PodView>]) -> Plan {
        let (now, related) = (at(1000), || HashMap::from([("full".to_owned(), 5)]));
        let owner = |pod: &PodView| pod.controller().map(|owner| owner.uid.clone());
        let owned: Vec<_> = pods.iter().filter(|pod| owner(pod) == set.metadata.uid).cloned().collect();
        let orphans = pods.iter().filter(|pod| owner(pod).is_none());
        let seen = survey(REPLICA_SETS, set, owned.iter().map(|pod| &**pod), orphans.map(|pod| &**pod), now);
        plan(REPLICA_SETS, set, || owned.clone(), &seen, related, now)
    }

    fn planned(replicas: i32, pods: Vec<PodView>) -> Vec<String> {
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        told(&planned_for(&set(replicas), &pods))
    }

    #[test]
    fn adopts_releases_creates_and_lets_others_be() {
        assert_eq!(planned(2, vec![]), ["create", "create"]);
        assert_eq!(planned(1, vec![pod("orphan", None, "x")]), ["orphan has 1 owners"]);
        assert_eq!(planned(0, vec![pod("mine", Some("s"), "other")]), ["mine has 0 owners"]);
        assert_eq!(planned(1, vec![pod("theirs", Some("t"), "x")]), ["create"]);
        let finished = PodView { phase: "Failed", ..pod("done", Some("s"), "x") };
        assert_eq!(planned(1, vec![finished.clone(), pod("mine", Some("s"), "x")]), Vec::<String>::new());
        assert_eq!(planned(0, vec![PodView { owners: vec![], ..finished }]), Vec::<String>::new());
        let leaving = PodView { deletion: Some(at(1)), ..pod("leaving", Some("s"), "x") };
        assert_eq!(planned(1, vec![leaving.clone()]), ["create"]);
        assert_eq!(planned(0, vec![PodView { owners: vec![], ..leaving }]), Vec::<String>::new());
    }

    #[test]
    fn scaling_down_takes_the_least_valuable_first() {
        let owned = |name: &str| pod(name, Some("s"), "x");
        let ready = |name: &str, since: i64| PodView { ready: true, ready_since: Some(at(since)), ..owned(name) };
        // Each is worth less than the next.
        let ranks = [
            PodView { node: String::new(), phase: "Pending", ..owned("unassigned") },
            PodView { phase: "Pending", ..owned("pending") },
            PodView { phase: "Unknown", ..owned("unknown") },
            owned("unready"),
            PodView { deletion_cost: -1, ..ready("cheap", 0) },
            PodView { node: "full".into(), ..ready("crowded", 0) },
            ready("lately", 990),
            PodView { restarts: 3, ..ready("restarting", 0) },
            PodView { created: Some(at(990)), ..ready("young", 0) },
            ready("old", 0),
            PodView { deletion_cost: 1, ..ready("dear", 0) },
        ];
        for keep in 0..ranks.len() {
            let mut shuffled = ranks.to_vec();
            shuffled.rotate_left(keep);
            let expected: Vec<_> = ranks[..ranks.len() - keep].iter().map(|p| format!("delete {}", p.name)).collect();
            assert_eq!(planned(i32::try_from(keep).unwrap(), shuffled), expected);
        }
    }

    #[test]
    fn what_is_not_yet_available_goes_first() {
        let since = |name: &str, since: i64, node: &str| {
            let node = node.to_owned();
            Arc::new(PodView { ready: true, ready_since: Some(at(since)), node, ..pod(name, Some("s"), "x") })
        };
        let pods = [since("available", 900, "full"), since("new", 995, "empty")];
        for (min_ready, gone) in [(0, "delete available"), (10, "delete new"), (200, "delete available")] {
            let mut set = set(1);
            set.spec.as_mut().unwrap().min_ready_seconds = Some(min_ready);
            assert_eq!(told(&planned_for(&set, &pods)), [gone], "{min_ready}");
        }
    }

    #[test]
    fn a_failed_creation_shows_until_it_succeeds() {
        let (mut set, condition) = (set(1), |set: &ReplicaSet, failure| {
            let plan = status(REPLICA_SETS, set, &Survey::default(), failure, at(5));
            plan.steps.first().map(|step| match &step.op {
                Op::Patch { body, .. } => body["status"].clone(),
                other => panic!("{other:?}"),
            })
        });
        let shown = condition(&set, Some(("FailedCreate", "quota"))).unwrap();
        assert_eq!(
            (&shown["conditions"][0]["type"], &shown["conditions"][0]["message"]),
            (&json!("ReplicaFailure"), &json!("quota"))
        );
        set.status = Some(
            serde_json::from_value(
                json!({ "replicas": 0, "terminatingReplicas": 0, "conditions": shown["conditions"] }),
            )
            .unwrap(),
        );
        assert_eq!(condition(&set, Some(("FailedCreate", "quota"))), None);
        assert_eq!(condition(&set, None).unwrap()["conditions"], json!(null));
    }
}

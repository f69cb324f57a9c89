//! Node health: silent nodes become Unknown, unhealthy ones are tainted, and pods leave when they do not tolerate it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use serde_json::json;

use crate::conditions::seconds;
use crate::ownership::reference;
use crate::plan::{NODES, Note, Op, PODS, PatchKind, Plan, Step};
use crate::pod::PodView;
use nodes::tolerates;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Set by an administrator who vouches that nothing runs on the node any more.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Conditions other than Ready, the status that is a problem, and the taint that says so.
const PROBLEMS: [(&str, &str, &str); 4] = [
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
/// How long a node may take from its registration to its first report (upstream: node-startup-grace-period).
const STARTUP_GRACE: Duration = Duration::from_secs(60);
/// What a kubelet reports, and nobody knows once it is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Pods that leave later, by uid: since when they have been on a node whose taints they tolerate only for a while.
pub type Pending = BTreeMap<String, Timestamp>;

/// What the health of a node calls for; `silent` is how long neither its Lease nor its status changed. `pending` is
/// what the last plan for this node left there.
pub fn plan(
    node: &Node,
    pods: &[Arc<PodView>],
    pending: &mut Pending,
    silent: Duration,
    grace: Duration,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let mut conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let was_ready = ready(&conditions) == Some("True");
    // Who never reported is starting up, not gone.
    let grace = if ready(&conditions).is_none() { grace.max(STARTUP_GRACE) } else { grace };
    if silent >= grace {
        if silence(&mut conditions, node, now) {
            let body = json!({ "status": { "conditions": conditions } });
            plan.push(Op::Patch {
                resource: NODES,
                namespace: String::new(),
                name: name.to_owned(),
                subresource: Some("status"),
                kind: PatchKind::Strategic,
                body,
            });
        }
    } else {
        plan.requeue(grace - silent + Duration::from_millis(50));
    }
    let about = reference(NODES, &node.metadata);
    let state = ready(&conditions);
    if was_ready && state != Some("True") {
        let message = format!("Node {name} status is now: NodeNotReady");
        plan.notes.push(Note::normal(&about, "NodeNotReady", message));
    }
    let taints = taints(node, &conditions, now);
    let known = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    if taints != known {
        let body = json!({ "metadata": { "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": taints } });
        // The status patch above moves the resourceVersion: then the taints follow in the next round.
        if plan.steps.is_empty() {
            plan.push(Op::merge(NODES, "", name, body));
        } else {
            plan.requeue(Duration::from_millis(10));
        }
    }
    if state.is_some_and(|state| state != "True") {
        mark_pods_not_ready(node, pods, now, &mut plan);
    }
    evict(&known, pods, pending, now, &mut plan);
    plan
}

/// The status of the Ready condition; `None` while the node has never reported one.
fn ready(conditions: &[NodeCondition]) -> Option<&str> {
    conditions.iter().find(|condition| condition.type_ == "Ready").map(|ready| ready.status.as_str())
}

/// Turns what the kubelet reported into Unknown; true when that changes anything.
fn silence(conditions: &mut Vec<NodeCondition>, node: &Node, now: Timestamp) -> bool {
    let mut changed = false;
    for kind in REPORTED {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                known.status = "Unknown".into();
                known.reason = Some("NodeStatusUnknown".into());
                known.message = Some("Kubelet stopped posting node status.".into());
                known.last_transition_time = Some(seconds(now));
                changed = true;
            }
            None => {
                conditions.push(NodeCondition {
                    type_: kind.into(),
                    status: "Unknown".into(),
                    reason: Some("NodeStatusNeverUpdated".into()),
                    message: Some("Kubelet never posted node status.".into()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(seconds(now)),
                });
                changed = true;
            }
        }
    }
    changed
}

/// The node's taints with those that follow from its conditions brought up to date.
fn taints(node: &Node, conditions: &[NodeCondition], now: Timestamp) -> Vec<Taint> {
    let state = ready(conditions);
    let problem = |kind: &str, bad: &str| conditions.iter().any(|c| c.type_ == kind && c.status == bad);
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match state {
        Some("True") => {}
        // A fresh node takes no new pods yet, and those that tolerate this stay.
        None => wanted.push((NOT_READY, "NoSchedule")),
        Some("False") => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        Some(_) => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
    }
    wanted.extend(PROBLEMS.iter().filter(|(kind, bad, _)| problem(kind, bad)).map(|(_, _, key)| (*key, "NoSchedule")));
    let spec = node.spec.clone().unwrap_or_default();
    if spec.unschedulable == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let managed = |taint: &Taint| {
        let key = taint.key.as_str();
        [NOT_READY, UNREACHABLE].contains(&key)
            || taint.effect == "NoSchedule"
                && (key == UNSCHEDULABLE || PROBLEMS.iter().any(|(_, _, problem)| *problem == key))
    };
    let mut taints = spec.taints.unwrap_or_default();
    taints.retain(|taint| !managed(taint) || wanted.contains(&(taint.key.as_str(), taint.effect.as_str())));
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(seconds(now)),
                value: None,
            });
        }
    }
    taints
}

/// Nobody vouches for the pods of an unready node: Services must stop to send them traffic.
fn mark_pods_not_ready(node: &Node, pods: &[Arc<PodView>], now: Timestamp, plan: &mut Plan) {
    let about = node.metadata.name.as_deref().unwrap_or_default();
    for pod in pods.iter().filter(|pod| pod.ready) {
        let body = json!({ "metadata": { "uid": pod.uid }, "status": { "conditions": [
            { "type": "Ready", "status": "False", "lastTransitionTime": seconds(now) } ] } });
        let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
        let (subresource, kind) = (Some("status"), PatchKind::Strategic);
        let note = Note::warning(&pod_reference(pod), "NodeNotReady", "Node is not ready");
        debug_assert_eq!(pod.node, about);
        let op = Op::Patch { resource: PODS, namespace, name, subresource, kind, body };
        plan.batch.push(Step::from(op).on_success(note));
    }
}

fn pod_reference(pod: &PodView) -> k8s_openapi::api::core::v1::ObjectReference {
    k8s_openapi::api::core::v1::ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        ..Default::default()
    }
}

/// How long a pod may stay on a node with these taints: `None` for ever, zero not at all. Of several tolerations that
/// cover a taint, the first counts.
fn stays(taints: &[&Taint], pod: &PodView) -> Option<Duration> {
    let mut shortest: Option<Duration> = None;
    for taint in taints {
        let Some(covering) = pod.tolerations.iter().find(|known| tolerates(known, taint)) else {
            return Some(Duration::ZERO);
        };
        if let Some(seconds) = covering.toleration_seconds {
            let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            shortest = Some(shortest.map_or(limit, |known| known.min(limit)));
        }
    }
    shortest
}

/// Deletes the pods whose tolerations do not (or no longer) cover the node's NoExecute taints. Time runs from when a
/// pod and a taint were first seen together: taints set by users do not say when.
fn evict(taints: &[Taint], pods: &[Arc<PodView>], pending: &mut Pending, now: Timestamp, plan: &mut Plan) {
    let executing: Vec<&Taint> = taints.iter().filter(|taint| taint.effect == "NoExecute").collect();
    pending.retain(|uid, _| pods.iter().any(|pod| pod.uid == *uid));
    for pod in pods.iter().filter(|pod| pod.deletion.is_none()) {
        let limit = if executing.is_empty() { None } else { stays(&executing, pod) };
        let Some(limit) = limit else {
            if pending.remove(&pod.uid).is_some() {
                let message = format!("Cancelling deletion of Pod {}/{}", pod.namespace, pod.name);
                plan.notes.push(Note::normal(&pod_reference(pod), "TaintManagerEviction", message));
            }
            continue;
        };
        let since = *pending.entry(pod.uid.clone()).or_insert(now);
        let limit = SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
        let rest = since.checked_add(limit).map_or(SignedDuration::ZERO, |due| due.duration_since(now));
        match Duration::try_from(rest).ok().filter(|rest| !rest.is_zero()) {
            Some(rest) => plan.requeue(rest + Duration::from_millis(10)),
            None => {
                let (namespace, name, uid) = (pod.namespace.clone(), pod.name.clone(), Some(pod.uid.clone()));
                let message = "Taint manager: deleting due to NoExecute taint";
                plan.push(disrupt(pod, "DeletionByTaintManager", message, now, None));
                let message = format!("Marking for deletion Pod {namespace}/{name}");
                let note = Note::normal(&pod_reference(pod), "TaintManagerEviction", message);
                let op = Op::Delete { resource: PODS, namespace, name, uid, grace: None };
                plan.batch.push(Step::from(op).on_success(note));
            }
        }
    }
}

/// Says on a pod why it is about to be deleted, so that its controller and whoever watches can tell. A phase is only
/// written to the pod as it was seen: its node may have returned and told how it really ended.
fn disrupt(pod: &PodView, reason: &str, message: &str, now: Timestamp, phase: Option<&str>) -> Op {
    let mut status = json!({ "conditions": [{ "type": "DisruptionTarget", "status": "True", "reason": reason,
        "message": message, "lastTransitionTime": seconds(now) }] });
    let mut metadata = json!({ "uid": pod.uid });
    if let Some(phase) = phase {
        status["phase"] = phase.into();
        metadata["resourceVersion"] = pod.resource_version.as_str().into();
    }
    Op::Patch {
        resource: PODS,
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        subresource: Some("status"),
        kind: PatchKind::Strategic,
        body: json!({ "metadata": metadata, "status": status }),
    }
}

/// Says that a pod has ended, where its deletion has told why before, and nothing has changed since it was seen.
fn fail(pod: &PodView) -> Op {
    Op::Patch {
        resource: PODS,
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        subresource: Some("status"),
        kind: PatchKind::Strategic,
        body: json!({ "metadata": { "uid": pod.uid, "resourceVersion": pod.resource_version },
            "status": { "phase": "Failed" } }),
    }
}

/// Whether nothing runs on the node any more: it is not ready, and its administrator says so.
pub fn is_out_of_service(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    ready(conditions) != Some("True") && taints.any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Pods that nobody else removes: of nodes that are gone, deleted before they were assigned or on a node that is out of
/// service, and finished ones beyond `finished_max` (oldest first). `absent` names nodes known to have been gone for the
/// quarantine, `out` those out of service.
pub fn collect_pods(
    pods: &[Arc<PodView>],
    absent: &[String],
    out: &[String],
    finished_max: usize,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let mut due: BTreeMap<&str, &Arc<PodView>> = BTreeMap::new();
    for pod in pods {
        let stranded = !pod.node.is_empty() && absent.contains(&pod.node);
        let leaves = pod.node.is_empty() && pod.deletion.is_some();
        if leaves && !pod.is_finished() && !pod.finalizers.is_empty() {
            // No kubelet will say that it ended, and whoever holds it may wait for just that.
            plan.push(fail(pod));
        }
        let never_assigned = leaves && pod.finalizers.is_empty();
        let lost = pod.deletion.is_some() && out.contains(&pod.node);
        if stranded || never_assigned || lost {
            due.insert(&pod.uid, pod);
        }
    }
    let mut finished: Vec<&Arc<PodView>> =
        pods.iter().filter(|pod| pod.is_finished() && pod.deletion.is_none()).collect();
    finished.sort_by_key(|pod| (pod.created, pod.name.clone()));
    let surplus = finished.len().saturating_sub(finished_max);
    due.extend(finished.into_iter().take(surplus).map(|pod| (pod.uid.as_str(), pod)));
    for pod in due.into_values() {
        if !pod.is_finished() && !pod.node.is_empty() {
            // Failed first, so that whoever watches learns why the pod ended.
            let message = "PodGC: node no longer exists";
            let gone = absent.contains(&pod.node);
            plan.push(if gone { disrupt(pod, "DeletionByPodGC", message, now, Some("Failed")) } else { fail(pod) });
        }
        let (namespace, name, uid) = (pod.namespace.clone(), pod.name.clone(), Some(pod.uid.clone()));
        plan.batch.push(Step::from(Op::Delete { resource: PODS, namespace, name, uid, grace: Some(0) }));
    }
    plan
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Toleration;

    use super::*;

    fn node(ready: &str, taints: serde_json::Value) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": "n" }, "spec": { "taints": taints },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] } }))
        .unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn keys(node: &Node) -> Vec<String> {
        let conditions = node.status.clone().unwrap().conditions.unwrap();
        taints(node, &conditions, at(0)).iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    }

    #[test]
    fn taints_follow_conditions() {
        let foreign = json!([{ "key": "gpu", "effect": "NoSchedule" }, { "key": NOT_READY, "effect": "NoSchedule" }]);
        assert_eq!(keys(&node("True", foreign.clone())), ["gpu:NoSchedule"]);
        let not_ready = format!("{NOT_READY}:NoSchedule");
        assert_eq!(keys(&node("False", foreign)), ["gpu:NoSchedule", &not_ready, &format!("{NOT_READY}:NoExecute")]);
        let unreachable = [format!("{UNREACHABLE}:NoSchedule"), format!("{UNREACHABLE}:NoExecute")];
        assert_eq!(keys(&node("Unknown", json!([]))), unreachable);
    }

    #[test]
    fn a_fresh_node_keeps_its_pods() {
        let fresh: Node = serde_json::from_value(json!({ "metadata": { "name": "n" }, "spec": {} })).unwrap();
        let pod = Arc::new(PodView { node: "n".into(), ready: true, ..PodView::default() });
        let grace = Duration::from_secs(40);
        let start = plan(&fresh, std::slice::from_ref(&pod), Duration::from_secs(59), grace, at(0));
        assert_eq!((start.steps.len(), start.batch.len(), start.notes.len()), (1, 0, 0), "{start:?}");
        assert_eq!(taints(&fresh, &[], at(0)).len(), 1);
        let mut marked = fresh;
        marked.spec.get_or_insert_default().taints = Some(taints(&marked, &[], at(0)));
        assert!(plan(&marked, &[pod], Duration::from_secs(59), grace, at(0)).is_empty());
        let silent = plan(&marked, &[], Duration::from_secs(60), grace, at(0));
        assert!(matches!(&silent.steps[0].op, Op::Patch { body, .. } if body.to_string().contains("NeverUpdated")));
    }

    fn plan(node: &Node, pods: &[Arc<PodView>], silent: Duration, grace: Duration, now: Timestamp) -> Plan {
        super::plan(node, pods, &mut Pending::new(), silent, grace, now)
    }

    #[test]
    fn pods_leave_when_their_toleration_ends() {
        let tolerating = |name: &str, limits: &[Option<i64>]| {
            let toleration = |seconds: &Option<i64>| Toleration {
                key: Some("k".into()),
                operator: Some("Exists".into()),
                toleration_seconds: *seconds,
                ..Toleration::default()
            };
            let tolerations = limits.iter().map(toleration).collect();
            Arc::new(PodView {
                uid: name.into(),
                name: name.into(),
                node: "n".into(),
                tolerations,
                ..PodView::default()
            })
        };
        let pods = [
            tolerating("short", &[Some(30)]),
            tolerating("long", &[Some(900), Some(1)]),
            tolerating("ever", &[None]),
            tolerating("never", &[]),
        ];
        let tainted = node("True", json!([{ "key": "k", "effect": "NoExecute" }]));
        let mut pending = Pending::new();
        let mut leaving = |node: &Node, second: i64| {
            let plan = super::plan(node, &pods, &mut pending, Duration::ZERO, Duration::from_secs(4000), at(second));
            let deleted = plan.batch.iter().map(|step| match &step.op {
                Op::Delete { name, .. } => name.clone(),
                other => panic!("{other:?}"),
            });
            (deleted.collect::<Vec<_>>(), plan.notes.len())
        };
        assert_eq!(leaving(&tainted, 100), (vec!["never".to_owned()], 0));
        assert_eq!(leaving(&tainted, 129), (vec!["never".to_owned()], 0));
        assert_eq!(leaving(&tainted, 130), (vec!["short".to_owned(), "never".to_owned()], 0));
        // Without the taint those that are still there stay, and are told so; later the time runs anew.
        assert_eq!(leaving(&node("True", json!([])), 140), (vec![], 3));
        assert_eq!(leaving(&tainted, 150), (vec!["never".to_owned()], 0));
    }

    #[test]
    fn an_evicted_pod_is_told_why() {
        let taints = json!([{ "key": "gone", "effect": "NoExecute" }]);
        let pod = Arc::new(PodView { name: "p".into(), node: "n".into(), ..PodView::default() });
        let evicted = plan(&node("True", taints), &[pod], Duration::ZERO, Duration::from_secs(40), at(0));
        let Op::Patch { body, subresource: Some("status"), .. } = &evicted.steps[0].op else { panic!("{evicted:?}") };
        assert_eq!(body["status"]["conditions"][0]["reason"], "DeletionByTaintManager");
        assert!(matches!(&evicted.batch[0].op, Op::Delete { name, grace: None, .. } if name == "p"));
    }

    #[test]
    fn a_silent_node_takes_its_pods_out_of_service() {
        let pod = |ready| Arc::new(PodView { node: "n".into(), ready, ..PodView::default() });
        let unknown = json!([{ "key": UNREACHABLE, "effect": "NoSchedule" }]);
        let plan =
            plan(&node("Unknown", unknown), &[pod(true), pod(false)], Duration::ZERO, Duration::from_secs(40), at(0));
        let [step] = plan.batch.as_slice() else { panic!("{plan:?}") };
        let Op::Patch { body, .. } = &step.op else { panic!("{step:?}") };
        assert_eq!(body["status"]["conditions"][0]["status"], "False");
        assert_eq!(step.done.as_ref().unwrap().reason, "NodeNotReady");
    }

    #[test]
    fn a_pod_that_is_held_and_has_no_node_fails() {
        let held = PodView { deletion: Some(at(1)), finalizers: vec!["job".into()], ..PodView::default() };
        let table = [
            (held.clone(), 1),
            (PodView { phase: "Failed", ..held.clone() }, 0),
            (PodView { deletion: None, ..held.clone() }, 0),
            (PodView { node: "n".into(), ..held }, 0),
        ];
        for (pod, writes) in table {
            let plan = collect_pods(&[Arc::new(pod.clone())], &[], &[], 9, at(2));
            assert_eq!((plan.steps.len(), plan.batch.len()), (writes, 0), "{pod:?}");
            if let Some(Op::Patch { body, .. }) = plan.steps.first().map(|step| &step.op) {
                assert_eq!(body["status"], json!({ "phase": "Failed" }));
            }
        }
    }

    #[test]
    fn pods_are_collected_with_their_node_and_beyond_the_limit() {
        let pod = |name: &str, node: &str, phase: &'static str, age: i64, deleting: bool| {
            Arc::new(PodView {
                name: name.into(),
                uid: name.into(),
                resource_version: format!("as-seen-{name}"),
                node: node.into(),
                phase,
                created: Some(at(100 - age)),
                deletion: deleting.then(|| at(100)),
                ..PodView::default()
            })
        };
        let pods = [
            pod("kept", "n", "Running", 1, false),
            pod("stranded", "lost", "Running", 1, false),
            pod("unbound", "", "Pending", 1, true),
            pod("old", "n", "Succeeded", 9, false),
            pod("new", "n", "Failed", 1, false),
            pod("evicted", "off", "Running", 1, true),
            pod("tolerant", "off", "Running", 1, false),
        ];
        let plan = collect_pods(&pods, &["lost".to_owned()], &["off".to_owned()], 1, at(100));
        let deleted: Vec<&str> = plan
            .batch
            .iter()
            .map(|step| match &step.op {
                Op::Delete { name, grace: Some(0), .. } => name.as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(deleted, ["evicted", "old", "stranded", "unbound"]);
        for (step, expected) in plan.steps.iter().zip(["evicted", "stranded"]) {
            let Op::Patch { name, body, .. } = &step.op else { panic!("{plan:?}") };
            assert_eq!((name.as_str(), &body["status"]["phase"]), (expected, &json!("Failed")));
            let seen = pods.iter().find(|pod| pod.name == *name).unwrap().resource_version.as_str();
            assert_eq!(body["metadata"]["resourceVersion"], seen, "how it ended may have been told since");
        }
        assert_eq!(plan.steps.len(), 2);
    }

    #[test]
    fn only_a_silent_node_is_out_of_service() {
        let taints = json!([{ "key": OUT_OF_SERVICE, "effect": "NoExecute" }]);
        assert!(is_out_of_service(&node("Unknown", taints.clone())));
        assert!(!is_out_of_service(&node("True", taints)));
        assert!(!is_out_of_service(&node("Unknown", json!([]))));
    }

    #[test]
    fn silence_makes_unknown_once() {
        let (node, grace) = (node("True", json!([])), Duration::from_secs(40));
        let calm = plan(&node, &[], Duration::from_secs(10), grace, at(0));
        assert!(calm.is_empty() && calm.requeue_after.is_some());
        let silent = plan(&node, &[], grace, grace, at(0));
        assert_eq!((silent.steps.len(), silent.notes.len()), (1, 1));
    }
}

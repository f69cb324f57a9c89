//! The decision: filter all nodes, score those that remain, take the best; or tell why there is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::plugin::{Rejection, Verdict};
use crate::plugins::{PLUGINS, named_nodes};
use crate::pod::PodInfo;
use crate::preempt::{Attempt, Preemption, attempt};
use crate::snapshot::{NodeInfo, Snapshot};

/// Why no node takes the pod.
#[derive(Clone, Debug, Default)]
pub struct Unschedulable {
    /// The text of the event and of the condition.
    pub message: String,
    /// The plugins that rejected nodes: what may cure the pod depends on them.
    pub plugins: Vec<&'static str>,
    /// Who has to go so that the pod fits soon.
    pub preemption: Option<Preemption>,
    /// No removal of pods helps: room that was kept for the pod is given up.
    pub hopeless: bool,
}

type Verdicts<'a> = Vec<Box<dyn Verdict + 'a>>;

fn prepare<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Verdicts<'a> {
    PLUGINS.iter().map(|plugin| (plugin.prepare)(pod, snapshot)).collect()
}

/// The node for the pod. `seed` decides among equally good ones.
pub fn place(pod: &PodInfo, snapshot: &Snapshot, seed: u64) -> Result<String, Box<Unschedulable>> {
    if snapshot.is_empty() {
        let message = "no nodes available to schedule pods".to_owned();
        return Err(Box::new(Unschedulable { message, hopeless: true, ..Unschedulable::default() }));
    }
    let verdicts = prepare(pod, snapshot);
    // Where pods were removed for this one, it goes as soon as it fits.
    if refused_by(&verdicts).is_none()
        && let Some(node) = snapshot.nomination(&pod.uid).and_then(|node| snapshot.node(node))
        && filter(pod, snapshot, &verdicts, node).is_ok()
    {
        return Ok(node.spec.name.clone());
    }
    if let Some((plugin, rejection)) = refused_by(&verdicts) {
        let refused: Vec<_> = everywhere(snapshot, plugin, &rejection).collect();
        return Err(explain(pod, snapshot, &refused, Some(&rejection), seed));
    }
    let (feasible, refused) = ask_all(pod, snapshot, &verdicts);
    best(&verdicts, &feasible, seed).ok_or_else(|| explain(pod, snapshot, &refused, None, seed))
}

/// The first plugin that refuses the pod whatever the node is.
fn refused_by(verdicts: &[Box<dyn Verdict + '_>]) -> Option<(&'static str, Rejection)> {
    PLUGINS.iter().zip(verdicts).find_map(|(plugin, verdict)| Some((plugin.name, verdict.refuses_all()?)))
}

fn everywhere<'a>(
    snapshot: &'a Snapshot,
    plugin: &'static str,
    rejection: &Rejection,
) -> impl Iterator<Item = Refused<'a>> {
    snapshot.nodes().map(move |node| Refused { node, plugin, rejection: rejection.clone() })
}

/// Every node's answer to the pod, in the order of their names: all that speaks against it there, where placing stops at
/// the first; nothing where the pod fits.
pub fn survey<'a>(pod: &PodInfo, snapshot: &'a Snapshot) -> Vec<(&'a NodeInfo, Vec<String>)> {
    let (verdicts, named) = (prepare(pod, snapshot), named_nodes(pod));
    let reasons = |node: &NodeInfo| {
        let mut reasons: Vec<String> = Vec::new();
        if named.as_ref().is_some_and(|named| !named.contains(node.spec.name.as_str())) {
            reasons.extend(not_named().1.reasons);
        }
        for rejection in verdicts.iter().filter_map(|verdict| verdict.filter(node).err()) {
            reasons.extend(rejection.reasons);
        }
        if reasons.is_empty()
            && let Err((_, rejection)) = filter(pod, snapshot, &verdicts, node)
        {
            reasons.extend(rejection.reasons);
        }
        reasons
    };
    let mut answers: Vec<_> = snapshot.nodes().map(|node| (node, reasons(node))).collect();
    answers.sort_by(|one, other| one.0.spec.name.cmp(&other.0.spec.name));
    answers
}

/// The answer of a node that is none of those to which the pod limits itself by name.
fn not_named() -> (&'static str, Rejection) {
    ("NodeAffinity", Rejection::final_("node(s) didn't satisfy plugin(s) [NodeAffinity]"))
}

fn ask_all<'a>(
    pod: &PodInfo,
    snapshot: &'a Snapshot,
    verdicts: &[Box<dyn Verdict + '_>],
) -> (Vec<&'a NodeInfo>, Vec<Refused<'a>>) {
    let named = named_nodes(pod);
    let (mut feasible, mut refused) = (Vec::new(), Vec::new());
    for node in snapshot.nodes() {
        let answer = match &named {
            Some(named) if !named.contains(node.spec.name.as_str()) => Err(not_named()),
            _ => filter(pod, snapshot, verdicts, node),
        };
        match answer {
            Ok(()) => feasible.push(node),
            Err((plugin, rejection)) => refused.push(Refused { node, plugin, rejection }),
        }
    }
    (feasible, refused)
}

struct Refused<'a> {
    node: &'a NodeInfo,
    plugin: &'static str,
    rejection: Rejection,
}

/// Asks all plugins about a node as it is, and as it will be when the pods come for which room is kept there: neither
/// may be taken for granted.
fn filter(
    pod: &PodInfo,
    snapshot: &Snapshot,
    verdicts: &[Box<dyn Verdict + '_>],
    node: &NodeInfo,
) -> Result<(), (&'static str, Rejection)> {
    if guests(pod, snapshot, node).next().is_some() {
        let mut trial = Trial::new(pod, snapshot, node);
        guests(pod, snapshot, node).for_each(|guest| trial.add(guest));
        trial.ask(&trial.node, trial.relational)?;
    }
    ask(verdicts, node)
}

fn ask(verdicts: &[Box<dyn Verdict + '_>], node: &NodeInfo) -> Result<(), (&'static str, Rejection)> {
    for (plugin, verdict) in PLUGINS.iter().zip(verdicts) {
        verdict.filter(node).map_err(|rejection| (plugin.name, rejection))?;
    }
    Ok(())
}

/// Pods for which room is kept on the node and that are not less important.
fn guests<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot, node: &NodeInfo) -> impl Iterator<Item = &'a Arc<PodInfo>> {
    let nominated = snapshot.nominated(&node.spec.name).iter();
    nominated.filter(|other| other.priority >= pod.priority && other.uid != pod.uid)
}

/// A node with other pods than it has.
pub(crate) struct Trial<'a> {
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
    node: NodeInfo,
    /// What the plugins know of the cluster as it is.
    verdicts: Verdicts<'a>,
    /// Whether what they know about other nodes depends on the pods of this one.
    relational: bool,
}

impl<'a> Trial<'a> {
    pub fn new(pod: &'a PodInfo, snapshot: &'a Snapshot, node: &NodeInfo) -> Self {
        let spreads = pod.spread.iter().any(|constraint| constraint.when_unsatisfiable == "DoNotSchedule");
        let relational = spreads || !pod.terms.is_empty() || snapshot.volumes().wants_alone(pod);
        Self { pod, snapshot, node: node.clone(), verdicts: prepare(pod, snapshot), relational }
    }

    pub fn add(&mut self, pod: &Arc<PodInfo>) {
        self.relational |= !pod.terms.is_empty();
        self.node.add(pod.clone());
    }

    pub fn remove(&mut self, pod: &Arc<PodInfo>) {
        self.relational |= !pod.terms.is_empty();
        self.node.remove(&pod.uid);
    }

    /// Whether the pod fits, also beside those for which room is kept.
    pub fn fits(&self) -> Result<(), Rejection> {
        let mut crowded = self.node.clone();
        let mut relational = self.relational;
        for guest in guests(self.pod, self.snapshot, &self.node) {
            relational |= !guest.terms.is_empty();
            crowded.add(guest.clone());
        }
        if crowded.pods.len() > self.node.pods.len() {
            self.ask(&crowded, relational).map_err(|(_, rejection)| rejection)?;
        }
        self.ask(&self.node, self.relational).map_err(|(_, rejection)| rejection)
    }

    fn ask(&self, node: &NodeInfo, relational: bool) -> Result<(), (&'static str, Rejection)> {
        if relational {
            let changed = self.snapshot.with_node(node.clone());
            return ask(&prepare(self.pod, &changed), node);
        }
        ask(&self.verdicts, node)
    }
}

fn best(verdicts: &[Box<dyn Verdict + '_>], feasible: &[&NodeInfo], seed: u64) -> Option<String> {
    let mut totals = vec![0i64; feasible.len()];
    for (plugin, verdict) in PLUGINS.iter().zip(verdicts).filter(|(plugin, _)| plugin.weight > 0) {
        let scores: Option<Vec<i64>> = feasible.iter().map(|node| verdict.score(node)).collect();
        let Some(mut scores) = scores else { continue };
        verdict.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += plugin.weight * score;
        }
    }
    let most = totals.iter().max()?;
    let winners: Vec<&&NodeInfo> = feasible.iter().zip(&totals).filter(|(_, t)| *t == most).map(|(n, _)| n).collect();
    let choice = usize::try_from(seed % u64::try_from(winners.len()).ok()?).ok()?;
    winners.get(choice).map(|node| node.spec.name.clone())
}

/// `everywhere`: what holds for all nodes alike, which is said once.
fn explain(
    pod: &PodInfo,
    snapshot: &Snapshot,
    refused: &[Refused<'_>],
    everywhere: Option<&Rejection>,
    seed: u64,
) -> Box<Unschedulable> {
    let reasons = refused.iter().flat_map(|one| one.rejection.reasons.iter().map(String::as_str));
    let mut message = match everywhere {
        Some(why) => format!("0/{} nodes are available: {}.", refused.len(), why.reasons.join(", ")),
        None => counted(refused.len(), reasons),
    };
    let why: Vec<_> = refused.iter().map(|one| (one.node, &one.rejection)).collect();
    let (mut preemption, mut hopeless) = (None, false);
    let unhelpful = match attempt(pod, snapshot, &why, seed) {
        Attempt::Victims(found) => {
            preemption = Some(found);
            None
        }
        Attempt::NotEligible(why) => Some(why.to_owned()),
        Attempt::Hopeless(reasons) => {
            hopeless = true;
            Some(counted(refused.len(), reasons.iter().flatten().map(String::as_str)))
        }
    };
    if let Some(unhelpful) = unhelpful {
        message.push_str(&format!(" no new claims to deallocate, preemption: {unhelpful}"));
    }
    let mut plugins: Vec<_> = refused.iter().map(|one| one.plugin).collect();
    plugins.sort_unstable();
    plugins.dedup();
    Box::new(Unschedulable { message, plugins, preemption, hopeless })
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods.`, sorted as text.
fn counted<'a>(nodes: usize, reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut parts: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::{Value, json};

    use super::*;
    use crate::NodeSpec;

    fn node(name: &str, spec: Value, labels: Value, cpu: &str) -> Arc<NodeSpec> {
        let allocatable = json!({"cpu": cpu, "memory": "4Gi", "pods": "10"});
        let node =
            json!({"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"allocatable": allocatable}});
        Arc::new(NodeSpec::new(serde_json::from_value::<Node>(node).unwrap()))
    }

    fn pod(name: &str, spec: Value) -> PodInfo {
        let metadata = json!({"name": name, "namespace": "a", "uid": name, "labels": {"app": "web"}});
        let mut pod = json!({"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        PodInfo::new(serde_json::from_value::<Pod>(pod).unwrap())
    }

    fn cluster() -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("n1", json!({}), json!({"zone": "a", "disk": "ssd"}), "1"));
        snapshot.set_node(node("n2", json!({}), json!({"zone": "b"}), "2"));
        let taint = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
        snapshot.set_node(node("n3", taint, json!({"zone": "b"}), "8"));
        snapshot
    }

    fn check(spec: Value, expected: &str) {
        check_in(&cluster(), spec, expected);
    }

    fn check_in(snapshot: &Snapshot, spec: Value, expected: &str) {
        let answer = match place(&pod("p", spec), snapshot, 0) {
            Ok(node) => node,
            Err(why) => why.message.split(" no new claims").next().unwrap().to_owned(),
        };
        assert_eq!(answer, expected);
    }

    fn cpu(amount: &str) -> Value {
        json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": amount}}}])
    }

    #[test]
    fn filters_tell_their_reasons() {
        check(json!({}), "n2");
        check(json!({"containers": cpu("1500m")}), "n2");
        check(
            json!({"containers": cpu("3")}),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu.",
        );
        check(json!({"containers": cpu("3"), "tolerations": [{"key": "k", "operator": "Exists"}]}), "n3");
        check(json!({"nodeSelector": {"disk": "ssd"}}), "n1");
        check(
            json!({"nodeSelector": {"disk": "tape"}, "tolerations": [{"operator": "Exists"}]}),
            "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
        );
        check(
            json!({"nodeName": "n9", "tolerations": [{"operator": "Exists"}]}),
            "0/3 nodes are available: 3 node(s) didn't match the requested node name.",
        );
        let term = |field: &str, operator: &str, value: &str| {
            let terms = json!([{field: [{"key": if field == "matchFields" { "metadata.name" } else { "zone" },
                "operator": operator, "values": [value]}]}]);
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": terms}}}})
        };
        check(term("matchFields", "In", "n1"), "n1");
        check(term("matchExpressions", "NotIn", "b"), "n1");
        check(
            term("matchExpressions", "In", "c"),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match Pod's node affinity/selector.",
        );
    }

    #[test]
    fn unhelpful_preemption_is_said_so() {
        let why = place(&pod("p", json!({"containers": cpu("100")})), &cluster(), 0).unwrap_err();
        assert_eq!(
            why.message,
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. no new claims to \
             deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
        );
        assert_eq!(why.plugins, ["NodeResourcesFit", "TaintToleration"]);
        let none = place(&pod("p", json!({})), &Snapshot::default(), 0).unwrap_err();
        assert_eq!(none.message, "no nodes available to schedule pods");
    }

    #[test]
    fn host_ports_and_room_are_taken_and_given_back() {
        let port =
            json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
        let mut snapshot = cluster();
        let first = place(&pod("p1", port.clone()), &snapshot, 0).unwrap();
        snapshot.add_pod(&first, Arc::new(pod("p1", port.clone())));
        let second = place(&pod("p2", port.clone()), &snapshot, 0).unwrap();
        assert_ne!(first, second);
        snapshot.add_pod(&second, Arc::new(pod("p2", port.clone())));
        let full = "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't have free ports for the \
                    requested pod ports.";
        check_in(&snapshot, port.clone(), full);
        snapshot.remove_pod(&first, "p1");
        check_in(&snapshot, port, &first);
    }

    #[test]
    fn cordoned_nodes_take_no_pods() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("n1", json!({"unschedulable": true}), json!({}), "1"));
        check_in(&snapshot, json!({}), "0/1 nodes are available: 1 node(s) were unschedulable.");
        let toleration = json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]});
        check_in(&snapshot, toleration, "n1");
    }

    #[test]
    fn spread_constraints_hold() {
        let spread = |key: &str| {
            json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": "web"}}}]})
        };
        let mut snapshot = cluster();
        snapshot.add_pod("n2", Arc::new(pod("p1", json!({}))));
        check_in(&snapshot, spread("zone"), "n1");
        snapshot.add_pod("n1", Arc::new(pod("p2", json!({}))));
        snapshot.add_pod("n1", Arc::new(pod("p3", json!({}))));
        check_in(&snapshot, spread("zone"), "n2");
        let missing = "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match pod topology \
                       spread constraints (missing required label).";
        check_in(&snapshot, spread("rack"), missing);
    }

    #[test]
    fn init_containers_and_sidecars_count_as_they_run() {
        let container = |name: &str, amount: &str, restart: Option<&str>| json!({"name": name, "image": "i", "restartPolicy": restart, "resources": {"requests": {"cpu": amount}}});
        let spec = json!({
            "containers": [container("c", "100m", None)],
            "initContainers": [container("i", "500m", None), container("s", "200m", Some("Always")), container("j", "400m", None)],
            "overhead": {"cpu": "10m"},
        });
        assert_eq!(pod("p", spec).requests.get("cpu"), 610);
    }

    #[test]
    fn preemption_is_spoken_of_only_where_it_does_not_help() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("n1", json!({}), json!({}), "1"));
        snapshot.add_pod("n1", Arc::new(pod("p1", json!({"containers": cpu("800m"), "priority": 5}))));
        let message = |priority: i64, policy: Option<&str>| {
            let spec = json!({"containers": cpu("800m"), "priority": priority, "preemptionPolicy": policy});
            place(&pod("p", spec), &snapshot, 0).unwrap_err().message
        };
        let plain = "0/1 nodes are available: 1 Insufficient cpu.";
        let why = format!("{plain} no new claims to deallocate");
        let none = ", preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
        assert_eq!(message(5, None), format!("{why}{none}"));
        assert_eq!(message(6, None), plain);
        let never = ", preemption: not eligible due to preemptionPolicy=Never.";
        assert_eq!(message(6, Some("Never")), format!("{why}{never}"));
    }

    /// `kind` is podAffinity or podAntiAffinity; the term selects app=web by default.
    fn terms(kind: &str, more: Value) -> Value {
        let mut term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}});
        term.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
    }

    fn zones(with: Option<(&str, Value)>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, zone) in [("n1", "a"), ("n2", "b"), ("n3", "b")] {
            snapshot.set_node(node(name, json!({}), json!({"zone": zone, "host": name}), "8"));
        }
        if let Some((at, spec)) = with {
            snapshot.add_pod(at, Arc::new(pod("there", spec)));
        }
        snapshot
    }

    #[test]
    fn pods_go_near_what_they_want() {
        let near = |more| terms("podAffinity", more);
        let nobody = "0/3 nodes are available: 3 node(s) didn't match pod affinity rules.";
        // The first of its kind goes anywhere, where the topology exists.
        check_in(&zones(None), near(json!({})), "n1");
        check_in(&zones(None), near(json!({"topologyKey": "rack"})), nobody);
        check_in(&zones(None), near(json!({"labelSelector": {"matchLabels": {"app": "db"}}})), nobody);
        check_in(&zones(Some(("n1", json!({})))), near(json!({})), "n1");
        check_in(&zones(Some(("n3", json!({})))), near(json!({"topologyKey": "host"})), "n3");
        // Other namespaces count when they are named or selected.
        check_in(&zones(Some(("n3", json!({})))), near(json!({"namespaces": ["b"], "topologyKey": "host"})), nobody);
        let selected = near(json!({"namespaceSelector": {"matchLabels": {"team": "x"}}, "topologyKey": "host"}));
        let mut snapshot = zones(Some(("n3", json!({}))));
        check_in(&snapshot, selected.clone(), nobody);
        snapshot.set_namespace("a", [("team".to_owned(), "x".to_owned())].into());
        check_in(&snapshot, selected, "n3");
        let own = near(json!({"labelSelector": {}, "matchLabelKeys": ["app"], "topologyKey": "host"}));
        check_in(&zones(Some(("n2", json!({})))), own, "n2");
    }

    #[test]
    fn pods_stay_away_on_either_sides_word() {
        let apart = |more| terms("podAntiAffinity", more);
        check_in(&zones(Some(("n2", json!({})))), apart(json!({})), "n1");
        check_in(&zones(Some(("n2", apart(json!({}))))), json!({}), "n1");
        let mut snapshot = zones(Some(("n1", json!({}))));
        snapshot.add_pod("n2", Arc::new(pod("second", json!({}))));
        check_in(
            &snapshot,
            apart(json!({})),
            "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.",
        );
        check_in(&snapshot, apart(json!({"topologyKey": "host"})), "n3");
        check_in(&snapshot, apart(json!({"mismatchLabelKeys": ["app"]})), "n3");
        let mut snapshot = zones(Some(("n1", apart(json!({})))));
        snapshot.add_pod("n2", Arc::new(pod("second", apart(json!({})))));
        check_in(
            &snapshot,
            json!({}),
            "0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules.",
        );
        snapshot.remove_pod("n1", "there");
        check_in(&snapshot, json!({}), "n1");
    }

    #[test]
    fn preferences_draw_and_push() {
        let prefer = |kind: &str, weight: i64| {
            let term = json!({"topologyKey": "host", "labelSelector": {"matchLabels": {"app": "web"}}});
            let preferred = json!([{"weight": weight, "podAffinityTerm": term}]);
            json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}})
        };
        check_in(&zones(Some(("n3", json!({})))), prefer("podAffinity", 100), "n3");
        check_in(&zones(Some(("n1", json!({})))), prefer("podAntiAffinity", 100), "n2");
        check_in(&zones(Some(("n3", prefer("podAffinity", 100)))), json!({}), "n3");
        check_in(&zones(Some(("n1", prefer("podAntiAffinity", 100)))), json!({}), "n2");
        check_in(&zones(Some(("n3", terms("podAffinity", json!({"topologyKey": "host"}))))), json!({}), "n3");
    }
}

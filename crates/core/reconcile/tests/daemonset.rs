//! DaemonSets in a simulated cluster: told stories, and random ones whose bounds must hold at every step.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "world/dice.rs"]
mod dice;
mod sets;

use dice::Dice;
use k8s_openapi::api::core::v1::Node;
use reconcile::daemonset::{FailedPods, history, plan, status};
use reconcile::plan::{Op, Plan};
use serde_json::{Value, json};
use sets::{Cluster, template};

/// Histories that each run tells.
const SEEDS: u64 = 24;

fn node(name: &str, more: Value) -> Node {
    let mut node = json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } } });
    reconcile::plan::merge(&mut node, &more);
    serde_json::from_value(node).unwrap()
}

fn cluster(nodes: usize, spec: Value) -> Cluster {
    let mut whole = json!({ "revisionHistoryLimit": 10,
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } } });
    reconcile::plan::merge(&mut whole, &spec);
    let mut cluster = Cluster::new("DaemonSet", whole);
    cluster.nodes = (0..nodes).map(|number| node(&format!("n{number}"), json!({}))).collect();
    cluster
}

fn planned(cluster: &Cluster, failed: &mut FailedPods) -> Plan {
    let (revisions, pods, nodes) = (cluster.revisions(), cluster.pods(), cluster.nodes());
    plan(&cluster.set(), &revisions, &pods, &nodes, failed, cluster.now)
}

fn report(cluster: &Cluster) -> Plan {
    status(&cluster.set(), &cluster.revisions(), &cluster.pods(), &cluster.nodes(), cluster.now)
}

/// One round of the controller.
fn reconcile(cluster: &mut Cluster, failed: &mut FailedPods) -> bool {
    let recorded = history(&cluster.set(), &cluster.revisions(), &cluster.pods());
    let mut changed = cluster.apply(&recorded);
    let wanted = planned(cluster, failed);
    changed |= cluster.apply(&wanted);
    let report = report(cluster);
    changed | cluster.apply(&report)
}

/// Lets everything happen until nothing does; panics when it never ends.
fn settle(cluster: &mut Cluster) {
    let mut failed = FailedPods::default();
    for _ in 0..400 {
        let mut changed = reconcile(cluster, &mut failed);
        let before = cluster.pods.clone();
        cluster.start_pods();
        cluster.end_pods();
        changed |= cluster.pods != before;
        if !changed && report(cluster) == Plan::default() {
            return;
        }
        cluster.tick(1);
    }
    panic!("never settles: {:#?}", planned(cluster, &mut failed));
}

fn settled(nodes: usize, spec: Value) -> Cluster {
    let mut cluster = cluster(nodes, spec);
    settle(&mut cluster);
    cluster.said();
    cluster
}

/// `NODE IMAGE` of each pod by node, with what is not usual about it.
fn on_nodes(cluster: &Cluster) -> String {
    let line = |pod: &reconcile::PodView| {
        let state = match pod {
            pod if pod.deletion.is_some() => " ending",
            pod if !pod.ready => " unready",
            _ => "",
        };
        format!("{} {}{state}", pod.target_node, cluster.image(pod))
    };
    let mut lines: Vec<String> = cluster.pods.iter().map(line).collect();
    lines.sort();
    lines.join(", ")
}

fn counts(cluster: &Cluster) -> String {
    let keys = ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled"];
    let more = ["numberAvailable", "numberUnavailable", "numberMisscheduled"];
    let count = |key: &&str| cluster.set["status"][*key].as_i64().unwrap_or(0).to_string();
    keys.iter().chain(&more).map(count).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_node_gets_its_pod() {
    let mut cluster = cluster(2, json!({}));
    reconcile(&mut cluster, &mut FailedPods::default());
    assert_eq!(on_nodes(&cluster), "n0 i:1 unready, n1 i:1 unready");
    assert_eq!(counts(&cluster), "2 2 0 2 0 2 0");
    settle(&mut cluster);
    assert_eq!(counts(&cluster), "2 2 2 2 2 0 0");
    let name = cluster.pods[0].name.clone();
    assert!(cluster.said().contains(&format!("SuccessfulCreate: Created pod: {name}")));
    cluster.nodes.push(node("joins", json!({})));
    settle(&mut cluster);
    assert_eq!(on_nodes(&cluster), "joins i:1, n0 i:1, n1 i:1");
}

#[test]
fn pods_follow_labels_and_taints() {
    let selects = |label: &str| json!({ "template": { "spec": { "nodeSelector": { "disk": label } } } });
    let mut cluster = settled(3, selects("ssd"));
    assert_eq!(on_nodes(&cluster), "");
    cluster.nodes[1] = node("n1", json!({ "metadata": { "labels": { "disk": "ssd" } } }));
    settle(&mut cluster);
    assert_eq!(on_nodes(&cluster), "n1 i:1");
    cluster.nodes[1] = node("n1", json!({ "metadata": { "labels": { "disk": "tape" } } }));
    settle(&mut cluster);
    assert_eq!(on_nodes(&cluster), "");

    let mut cluster = settled(2, json!({}));
    let taint = |effect: &str| json!({ "spec": { "taints": [{ "key": "k", "effect": effect }] } });
    cluster.nodes[0] = node("n0", taint("NoSchedule"));
    settle(&mut cluster);
    assert_eq!((on_nodes(&cluster).as_str(), counts(&cluster).as_str()), ("n0 i:1, n1 i:1", "1 1 1 1 1 0 1"));
    cluster.nodes[0] = node("n0", taint("NoExecute"));
    settle(&mut cluster);
    assert_eq!(on_nodes(&cluster), "n1 i:1");
    // What every daemon tolerates.
    let unready = json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoExecute" },
        { "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }]);
    cluster.nodes[0] = node("n0", json!({ "spec": { "taints": unready } }));
    settle(&mut cluster);
    assert_eq!(on_nodes(&cluster), "n0 i:1, n1 i:1");
}

#[test]
fn required_affinity_of_the_template_chooses_nodes() {
    let term = |operator: &str, values: Value| {
        let expression = json!({ "key": "size", "operator": operator, "values": values });
        let required = json!({ "nodeSelectorTerms": [{ "matchExpressions": [expression] }] });
        json!({ "template": { "spec": { "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": required } } } } })
    };
    for (operator, values, expected) in [
        ("In", json!(["3", "9"]), "n0 i:1"),
        ("NotIn", json!(["3"]), "n1 i:1"),
        ("Exists", json!([]), "n0 i:1"),
        ("DoesNotExist", json!([]), "n1 i:1"),
        ("Gt", json!(["2"]), "n0 i:1"),
        ("Lt", json!(["2"]), ""),
    ] {
        let mut cluster = cluster(2, term(operator, values));
        cluster.nodes[0] = node("n0", json!({ "metadata": { "labels": { "size": "3" } } }));
        settle(&mut cluster);
        assert_eq!(on_nodes(&cluster), expected, "{operator}");
    }
}

#[test]
fn pods_say_where_they_belong_and_tolerate_what_daemons_do() {
    let limited = json!({ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 3 });
    let mut cluster = cluster(1, json!({ "template": { "spec": { "hostNetwork": true, "tolerations": [limited] } } }));
    cluster.set["metadata"]["annotations"] = json!({ "deprecated.daemonset.template.generation": "7" });
    cluster.apply(&history(&cluster.set(), &[], &[]));
    let plan = planned(&cluster, &mut FailedPods::default());
    let Op::Create { object, .. } = &plan.batch[0].op else { panic!("{plan:?}") };
    let field = json!({ "key": "metadata.name", "operator": "In", "values": ["n0"] });
    let required = &object["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(required, &json!({ "nodeSelectorTerms": [{ "matchFields": [field] }] }));
    let keys: Vec<String> = object["spec"]["tolerations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            format!("{}:{}", one["key"].as_str().unwrap().rsplit('/').next().unwrap(), one["effect"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        keys,
        [
            "not-ready:NoExecute",
            "unreachable:NoExecute",
            "disk-pressure:NoSchedule",
            "memory-pressure:NoSchedule",
            "pid-pressure:NoSchedule",
            "unschedulable:NoSchedule",
            "network-unavailable:NoSchedule"
        ]
    );
    assert_eq!(object["spec"]["tolerations"][0]["tolerationSeconds"], Value::Null);
    assert_eq!(object["metadata"]["labels"]["pod-template-generation"], "7");
    let hash = cluster.revisions[0].metadata.labels.as_ref().unwrap()["controller-revision-hash"].clone();
    assert_eq!(object["metadata"]["labels"]["controller-revision-hash"], hash);
    assert_eq!(cluster.revisions[0].metadata.name, Some(format!("web-{hash}")));
}

#[test]
fn failed_pods_are_replaced_later_each_time() {
    let (mut cluster, mut failed) = (settled(1, json!({})), FailedPods::default());
    let mut waits = Vec::new();
    for _ in 0..4 {
        cluster.finish_pod(0, "Failed");
        let name = cluster.pods[0].name.clone();
        let mut waited = 0;
        while !reconcile(&mut cluster, &mut failed) || cluster.pods[0].deletion.is_none() {
            assert!(planned(&cluster, &mut failed.clone()).requeue_after.is_some());
            cluster.tick(1);
            waited += 1;
        }
        waits.push(waited);
        let said = cluster.said();
        let why = format!("FailedDaemonPod: Found failed daemon pod a/{name} on node n0, will try to kill it");
        assert!(said.contains(&why) && said.contains(&format!("SuccessfulDelete: Deleted pod: {name}")), "{said:?}");
        cluster.end_pods();
        reconcile(&mut cluster, &mut failed);
        cluster.start_pods();
    }
    assert_eq!(waits, [0, 1, 2, 4]);
    cluster.finish_pod(0, "Succeeded");
    reconcile(&mut cluster, &mut failed);
    assert!(cluster.said().iter().any(|line| line.starts_with("SucceededDaemonPod: Found succeeded daemon pod a/")));
}

#[test]
fn an_update_replaces_one_after_the_other_and_can_be_taken_back() {
    let mut cluster = settled(3, json!({}));
    cluster.edit(json!({ "template": template("i:2") }));
    reconcile(&mut cluster, &mut FailedPods::default());
    assert_eq!(on_nodes(&cluster), "n0 i:1 ending, n1 i:1, n2 i:1");
    settle(&mut cluster);
    assert_eq!((on_nodes(&cluster).as_str(), counts(&cluster).as_str()), ("n0 i:2, n1 i:2, n2 i:2", "3 3 3 3 3 0 0"));
    assert_eq!(cluster.history(), ["1 i:1", "2 i:2"]);
    // A broken update stops at its first pod; taking it back touches that one alone.
    cluster.broken = vec!["i:3".into()];
    cluster.edit(json!({ "template": template("i:3") }));
    settle(&mut cluster);
    assert_eq!(on_nodes(&cluster), "n0 i:3 unready, n1 i:2, n2 i:2");
    let kept: Vec<String> = cluster.pods.iter().filter(|pod| pod.ready).map(|pod| pod.uid.clone()).collect();
    cluster.edit(json!({ "template": template("i:2") }));
    settle(&mut cluster);
    assert_eq!(on_nodes(&cluster), "n0 i:2, n1 i:2, n2 i:2");
    assert!(kept.iter().all(|uid| cluster.pods.iter().any(|pod| pod.uid == *uid)));
    assert_eq!(cluster.history(), ["1 i:1", "3 i:3", "4 i:2"]);
}

#[test]
fn surge_adds_before_it_takes_away() {
    let surge = json!({ "updateStrategy": { "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } } });
    let (mut cluster, mut failed) = (settled(2, surge), FailedPods::default());
    cluster.edit(json!({ "template": template("i:2") }));
    reconcile(&mut cluster, &mut failed);
    assert_eq!(on_nodes(&cluster), "n0 i:1, n0 i:2 unready, n1 i:1");
    assert!(!reconcile(&mut cluster, &mut failed));
    cluster.start_pods();
    reconcile(&mut cluster, &mut failed);
    assert_eq!(on_nodes(&cluster), "n0 i:1 ending, n0 i:2, n1 i:1");
    settle(&mut cluster);
    assert_eq!(on_nodes(&cluster), "n0 i:2, n1 i:2");
}

#[test]
fn on_delete_updates_what_the_user_deletes() {
    let mut cluster = settled(2, json!({ "updateStrategy": { "type": "OnDelete", "rollingUpdate": null } }));
    cluster.edit(json!({ "template": template("i:2") }));
    settle(&mut cluster);
    assert_eq!((on_nodes(&cluster).as_str(), counts(&cluster).as_str()), ("n0 i:1, n1 i:1", "2 2 2 0 2 0 0"));
    let now = cluster.now;
    cluster.pods[0].deletion = Some(now);
    settle(&mut cluster);
    assert_eq!(on_nodes(&cluster), "n0 i:2, n1 i:1");
}

#[test]
fn equal_revisions_become_one() {
    let mut cluster = settled(2, json!({}));
    let mut twin = cluster.revisions[0].clone();
    twin.revision = 5;
    (twin.metadata.name, twin.metadata.uid) = (Some("web-twin".into()), Some("twin".into()));
    twin.metadata.labels.as_mut().unwrap().insert("controller-revision-hash".into(), "twin".into());
    cluster.revisions.push(twin);
    settle(&mut cluster);
    assert_eq!(cluster.revisions.len(), 1);
    assert_eq!(cluster.revisions[0].metadata.name.as_deref(), Some("web-twin"));
    assert!(cluster.pods.iter().all(|pod| cluster.revision_of(&pod.name) == "twin"));
    assert_eq!(counts(&cluster), "2 2 2 2 2 0 0");
}

#[test]
fn history_is_cut_to_its_limit() {
    let mut cluster = settled(1, json!({ "revisionHistoryLimit": 1 }));
    for number in 2..=4 {
        cluster.edit(json!({ "template": template(&format!("i:{number}")) }));
        settle(&mut cluster);
    }
    assert_eq!(cluster.history(), ["3 i:3", "4 i:4"]);
}

#[test]
fn a_pod_for_a_node_that_is_gone_goes() {
    let mut cluster = cluster(2, json!({}));
    reconcile(&mut cluster, &mut FailedPods::default());
    cluster.nodes.pop();
    settle(&mut cluster);
    assert_eq!(on_nodes(&cluster), "n0 i:1");
}

#[test]
fn a_set_that_selects_all_is_told_so() {
    let mut cluster = cluster(1, json!({}));
    cluster.set["spec"]["selector"] = json!({});
    assert!(!reconcile(&mut cluster, &mut FailedPods::default()));
    let why = "SelectingAll: This daemon set is selecting all pods. A non-empty selector is required.";
    assert_eq!(cluster.said(), [why]);
}

#[test]
fn bounds_hold_in_random_histories() {
    for seed in 0..SEEDS {
        let mut dice = Dice::new(seed);
        let nodes = 1 + dice.below(5);
        let (surge, unavailable) = if dice.below(2) == 0 { (1 + dice.below(2), 0) } else { (0, 1 + dice.below(2)) };
        let rolling = json!({ "maxSurge": surge, "maxUnavailable": unavailable });
        let min_ready = 2 * i32::from(dice.below(2) == 0);
        let mut cluster =
            settled(nodes, json!({ "minReadySeconds": min_ready, "updateStrategy": { "rollingUpdate": rolling } }));
        let mut failed = FailedPods::default();
        for step in 0..200 {
            let index = dice.below(cluster.pods.len().max(1));
            match dice.below(20) {
                0 => cluster.edit(json!({ "template": template(&format!("i:{}", 1 + dice.below(3))) })),
                1 => cluster.broken = vec![format!("i:{}", 1 + dice.below(3))],
                2..=6 => cluster.start_pod(index),
                7..=11 => cluster.end_pod(index),
                12 => cluster.tick(1),
                _ => _ = reconcile(&mut cluster, &mut failed),
            }
            let available = |pod: &&reconcile::PodView| pod.is_active() && pod.is_available(min_ready, cluster.now);
            let on = |node: usize| cluster.pods.iter().filter(move |pod| pod.target_node == format!("n{node}"));
            let serving = (0..nodes).filter(|node| on(*node).any(|pod| available(&pod))).count();
            let doubled = (0..nodes).filter(|node| on(*node).filter(|pod| pod.is_active()).count() > 1).count();
            let why = || format!("seed {seed} step {step}: {}", on_nodes(&cluster));
            assert!(serving + unavailable >= nodes, "{}", why());
            assert!(doubled <= surge, "{}", why());
        }
        cluster.broken.clear();
        settle(&mut cluster);
        let image = cluster.set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
        let expected: Vec<String> = (0..nodes).map(|node| format!("n{node} {image}")).collect();
        assert_eq!(on_nodes(&cluster), expected.join(", "), "seed {seed}");
    }
}

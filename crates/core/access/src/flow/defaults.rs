//! The flow schemas and priority levels of every cluster.

use serde_json::{Map, Value, json};

const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";

/// name, shares, percent that may be lent, queues, hand size
const LEVELS: [(&str, u32, u32, u32, u32); 6] = [
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let annotations = json!({"apf.kubernetes.io/autoupdate-spec": "true"});
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "annotations": annotations},
        "spec": spec})
}

fn level(name: &str, spec: Value) -> Value {
    object("PriorityLevelConfiguration", name, spec)
}

/// Who, and what they ask for: everything where no rule is given.
struct Rules<'a> {
    subjects: Vec<Value>,
    /// verbs, groups, resources, cluster-wide too
    resources: &'a [(&'a [&'a str], &'a str, &'a [&'a str], bool)],
    paths: &'a [(&'a str, &'a [&'a str])],
}

const EVERYTHING: &[(&[&str], &str, &[&str], bool)] = &[(&["*"], "*", &["*"], true)];
const EVERYWHERE: &[(&str, &[&str])] = &[("*", &["*"])];

fn all(subjects: Vec<Value>) -> Rules<'static> {
    Rules { subjects, resources: EVERYTHING, paths: EVERYWHERE }
}

fn schema(name: &str, level: &str, precedence: u32, by: &str, rules: Rules<'_>) -> Value {
    let resource = |(verbs, group, resources, cluster): &(&[&str], &str, &[&str], bool)| {
        let mut rule = Map::new();
        rule.insert("verbs".into(), json!(verbs));
        rule.insert("apiGroups".into(), json!([group]));
        rule.insert("resources".into(), json!(resources));
        rule.insert("namespaces".into(), json!(["*"]));
        if *cluster {
            rule.insert("clusterScope".into(), true.into());
        }
        Value::Object(rule)
    };
    let mut rule = json!({"subjects": rules.subjects});
    if !rules.resources.is_empty() {
        rule["resourceRules"] = rules.resources.iter().map(resource).collect();
    }
    if !rules.paths.is_empty() {
        let path = |(verb, paths): &(&str, &[&str])| json!({"verbs": [verb], "nonResourceURLs": paths});
        rule["nonResourceRules"] = rules.paths.iter().map(path).collect();
    }
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
        "rules": [rule]});
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    object("FlowSchema", name, spec)
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": format!("system:{name}")}})).collect()
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": format!("system:{name}")}})
}

fn kube_system() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}})
}

/// Levels first, then the schemas that lead to them.
pub fn objects() -> Vec<Value> {
    let mut objects = vec![
        level("exempt", json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}})),
        level(
            "catch-all",
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0,
                "limitResponse": {"type": "Reject"}}}),
        ),
    ];
    objects.extend(LEVELS.iter().map(|(name, shares, lendable, queues, hand)| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable,
            "limitResponse": {"type": "Queue", "queuing": queuing}});
        level(name, json!({"type": "Limited", "limited": limited}))
    }));
    objects.extend(schemas());
    objects
}

fn schemas() -> [Value; 11] {
    let everybody = || groups(&["unauthenticated", "authenticated"]);
    let lease: &[&str] = &["leases"];
    let leaders = Rules {
        subjects: vec![user("kube-controller-manager"), user("kube-scheduler"), kube_system()],
        resources: &[(&["get", "create", "update"], "coordination.k8s.io", lease, false)],
        paths: &[],
    };
    let nodes = Rules {
        subjects: groups(&["nodes"]),
        resources: &[(&["*"], "", &["nodes", "nodes/status"], true), (&["*"], "coordination.k8s.io", lease, false)],
        paths: &[],
    };
    let probes = Rules { subjects: everybody(), resources: &[], paths: &[("get", &["/healthz", "/readyz", "/livez"])] };
    [
        schema("exempt", "exempt", 1, "", all(groups(&["masters"]))),
        schema("probes", "exempt", 2, "", probes),
        schema("system-leader-election", "leader-election", 100, "ByUser", leaders),
        schema("system-node-high", "node-high", 400, "ByUser", nodes),
        schema("system-nodes", "system", 500, "ByUser", all(groups(&["nodes"]))),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            all(vec![user("kube-controller-manager")]),
        ),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", all(vec![user("kube-scheduler")])),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", all(vec![kube_system()])),
        schema("service-accounts", "workload-low", 9000, "ByUser", all(groups(&["serviceaccounts"]))),
        schema("global-default", "global-default", 9900, "ByUser", all(everybody())),
        schema("catch-all", "catch-all", 10_000, "ByUser", all(everybody())),
    ]
}

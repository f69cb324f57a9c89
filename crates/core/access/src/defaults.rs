//! The roles and bindings that every cluster starts with: upstream's, read from a compact table of facts.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::rule::Rule;

/// One line per rule and subject; see [`parse`] for the grammar.
const TABLE: &str = include_str!("defaults.txt");

/// What kubeadm adds, so that machines can join with bootstrap tokens; same grammar.
const JOINING: &str = include_str!("joining.txt");

/// Marks objects that a starting server repairs.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const GROUP: &str = "rbac.authorization.k8s.io";

/// A cluster role (namespace empty) or role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultRole {
    pub namespace: String,
    pub name: String,
    /// Labels with the value `true`, beside the one that all defaults carry.
    pub labels: Vec<String>,
    /// Labels whose carriers' rules are this role's.
    pub aggregates: Vec<String>,
    pub rules: Vec<Rule>,
}

/// A cluster role binding (namespace empty) or role binding; it refers to a role of its own scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultBinding {
    pub namespace: String,
    pub name: String,
    pub role: String,
    /// Subjects as the API has them.
    pub subjects: Vec<Value>,
    /// A role binding may refer to a cluster role instead.
    pub to_cluster_role: bool,
}

/// Everything in the table. The grammar, by line:
/// `role [NAMESPACE/]NAME`, `binding [NAMESPACE/]NAME ROLE`, and indented below a role `label KEY`, `aggregate KEY`,
/// `VERBS GROUPS RESOURCES [NAMES]` or `VERBS URLS` (`core` is the group without a name); below a binding `group NAME`,
/// `user NAME` or `account NAMESPACE/NAME`.
/// A binding's ROLE is of the binding's own scope; `cluster:ROLE` in a role binding is a cluster role.
pub fn all() -> (Vec<DefaultRole>, Vec<DefaultBinding>) {
    let (mut roles, mut bindings) = parse(TABLE);
    let (more_roles, more_bindings) = parse(JOINING);
    roles.extend(more_roles);
    bindings.extend(more_bindings);
    (roles, bindings)
}

fn parse(table: &str) -> (Vec<DefaultRole>, Vec<DefaultBinding>) {
    let (mut roles, mut bindings) = (Vec::new(), Vec::<DefaultBinding>::new());
    let mut in_role = true;
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (line.starts_with(' '), words.as_slice()) {
            (false, ["role", name]) => {
                in_role = true;
                let (namespace, name) = scoped(name);
                roles.push(DefaultRole { namespace, name, ..DefaultRole::default() });
            }
            (false, ["binding", name, role]) => {
                in_role = false;
                let (namespace, name) = scoped(name);
                let (role, to_cluster_role) = match role.strip_prefix("cluster:") {
                    Some(role) => (role, true),
                    None => (*role, namespace.is_empty()),
                };
                let binding = DefaultBinding { namespace, name, role: role.to_owned(), ..DefaultBinding::default() };
                bindings.push(DefaultBinding { to_cluster_role, ..binding });
            }
            (true, words) if in_role => {
                if let Some(role) = roles.last_mut() {
                    add_to_role(role, words);
                }
            }
            (true, [kind, name]) => {
                if let Some(binding) = bindings.last_mut() {
                    binding.subjects.push(subject(kind, name));
                }
            }
            _ => debug_assert!(line.is_empty(), "an unknown line in the table of default roles: {line}"),
        }
    }
    (roles, bindings)
}

fn scoped(name: &str) -> (String, String) {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    (namespace.to_owned(), name.to_owned())
}

fn add_to_role(role: &mut DefaultRole, words: &[&str]) {
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let groups = |text: &str| text.split(',').map(|g| if g == "core" { "" } else { g }.to_owned()).collect::<Vec<_>>();
    match words {
        ["label", key] => role.labels.push((*key).to_owned()),
        ["aggregate", key] => role.aggregates.push((*key).to_owned()),
        [verbs, urls] => {
            role.rules.push(Rule { verbs: list(verbs), non_resource_urls: list(urls), ..Rule::default() });
        }
        [verbs, api_groups, resources, names @ ..] => role.rules.push(Rule {
            verbs: list(verbs),
            api_groups: groups(api_groups),
            resources: list(resources),
            resource_names: names.first().map(|n| list(n)).unwrap_or_default(),
            non_resource_urls: Vec::new(),
        }),
        _ => debug_assert!(false, "an unknown rule in the table of default roles: {words:?}"),
    }
}

fn subject(kind: &str, name: &str) -> Value {
    match kind {
        "account" => {
            let (namespace, name) = scoped(name);
            json!({ "kind": "ServiceAccount", "name": name, "namespace": namespace })
        }
        "user" => json!({ "apiGroup": GROUP, "kind": "User", "name": name }),
        _ => json!({ "apiGroup": GROUP, "kind": "Group", "name": name }),
    }
}

fn metadata(namespace: &str, name: &str, labels: &[String]) -> Value {
    let mut all = BTreeMap::from([("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".to_owned())]);
    all.extend(labels.iter().map(|label| (label.clone(), "true".to_owned())));
    let mut metadata = json!({ "name": name, "labels": all, "annotations": { AUTOUPDATE: "true" } });
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

impl DefaultRole {
    /// As the API has it. Aggregated roles carry the rules that aggregation yields among `all` defaults.
    pub fn to_object(&self, all: &[Self]) -> Value {
        let kind = if self.namespace.is_empty() { "ClusterRole" } else { "Role" };
        let mut object = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": kind,
            "metadata": metadata(&self.namespace, &self.name, &self.labels),
            "rules": self.effective_rules(all),
        });
        if !self.aggregates.is_empty() {
            let selector = |key: &String| json!({ "matchLabels": { key: "true" } });
            object["aggregationRule"] =
                json!({ "clusterRoleSelectors": self.aggregates.iter().map(selector).collect::<Vec<_>>() });
        }
        object
    }

    /// The role's own rules, or those of the roles that it aggregates, however deep.
    fn effective_rules(&self, all: &[Self]) -> Vec<Rule> {
        if self.aggregates.is_empty() {
            return self.rules.clone();
        }
        let chosen = |role: &&Self| role.name != self.name && role.labels.iter().any(|l| self.aggregates.contains(l));
        let mut rules: Vec<Rule> = Vec::new();
        for rule in all.iter().filter(chosen).flat_map(|role| role.effective_rules(all)) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        rules
    }
}

impl DefaultBinding {
    /// As the API has it.
    pub fn to_object(&self) -> Value {
        let kind = if self.namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
        let role_kind = if self.to_cluster_role { "ClusterRole" } else { "Role" };
        json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": kind,
            "metadata": metadata(&self.namespace, &self.name, &[]),
            "roleRef": { "apiGroup": GROUP, "kind": role_kind, "name": self.role },
            "subjects": self.subjects,
        })
    }
}

/// What a starting server does with a default object that is there already: None where nothing is missing, otherwise
/// the object with the missing rules or subjects added. Extra ones stay; an object whose autoupdate annotation was set
/// to `false` is the administrator's.
pub fn reconcile(existing: &Value, wanted: &Value) -> Option<Value> {
    if existing["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let mut repaired = existing.clone();
    for field in ["labels", "annotations"] {
        add_missing_keys(&mut repaired["metadata"][field], &wanted["metadata"][field]);
    }
    if wanted.get("roleRef").is_some() {
        add_missing_items(&mut repaired["subjects"], &wanted["subjects"]);
    } else if let Some(aggregation) = wanted.get("aggregationRule") {
        // The rules are the aggregation controller's; only what they are gathered by is ours.
        add_missing_items(
            &mut repaired["aggregationRule"]["clusterRoleSelectors"],
            &aggregation["clusterRoleSelectors"],
        );
    } else {
        add_missing_rules(&mut repaired["rules"], &wanted["rules"]);
    }
    (repaired != *existing).then_some(repaired)
}

fn add_missing_keys(have: &mut Value, want: &Value) {
    let Some(want) = want.as_object() else { return };
    if !have.is_object() {
        *have = json!({});
    }
    for (key, value) in want {
        if have.get(key).is_none() {
            have[key.as_str()] = value.clone();
        }
    }
}

fn add_missing_items(have: &mut Value, want: &Value) {
    for item in want.as_array().into_iter().flatten() {
        if !have.as_array().is_some_and(|have| have.contains(item)) {
            push(have, item.clone());
        }
    }
}

fn add_missing_rules(have: &mut Value, want: &Value) {
    let read = |value: &Value| serde_json::from_value::<Vec<Rule>>(value.clone()).unwrap_or_default();
    for rule in crate::escalation::missing(&read(have), &read(want)) {
        push(have, json!(rule));
    }
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}

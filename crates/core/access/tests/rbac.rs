//! Tables: roles and bindings as YAML, then one request per line with the answer it must get.
#![allow(clippy::unwrap_used)]

use access::{Attributes, Decision, Object, Rbac, RbacKind, Rule, User, defaults, escalation, forbidden};
use serde_json::Value;

fn cluster(yaml: &str) -> Rbac {
    let mut rbac = Rbac::default();
    for text in yaml.split("---\n") {
        let object: Value = serde_saphyr::from_str(text).unwrap();
        put(&mut rbac, &object);
    }
    rbac
}

fn put(rbac: &mut Rbac, object: &Value) {
    let kind = match object["kind"].as_str().unwrap() {
        "Role" => RbacKind::Role,
        "ClusterRole" => RbacKind::ClusterRole,
        "RoleBinding" => RbacKind::RoleBinding,
        _ => RbacKind::ClusterRoleBinding,
    };
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    let parsed = Object::from_value(kind, object).unwrap();
    rbac.apply(kind, namespace, metadata["name"].as_str().unwrap(), Some(parsed));
}

fn defaults_cluster() -> Rbac {
    let mut rbac = Rbac::default();
    let (roles, bindings) = defaults::all();
    roles.iter().for_each(|role| put(&mut rbac, &role.to_object(&roles)));
    bindings.iter().for_each(|binding| put(&mut rbac, &binding.to_object()));
    rbac
}

/// `USER[+GROUP...] VERB RESOURCE[.GROUP][/SUB][:NAME]|/PATH [NAMESPACE]`
fn request(text: &str) -> Attributes {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut who = words[0].split('+');
    let user =
        User { name: who.next().unwrap().to_owned(), groups: who.map(str::to_owned).collect(), ..User::default() };
    let mut asked = Attributes { user, verb: words[1].to_owned(), ..Attributes::default() };
    asked.namespace = words.get(3).unwrap_or(&"").to_string();
    if words[2].starts_with('/') {
        asked.path = words[2].to_owned();
        return asked;
    }
    let (what, name) = words[2].split_once(':').unwrap_or((words[2], ""));
    let (what, sub) = what.split_once('/').unwrap_or((what, ""));
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    (asked.resource, asked.group) = (resource.to_owned(), group.to_owned());
    (asked.subresource, asked.name) = (sub.to_owned(), name.to_owned());
    asked
}

/// Lines of `REQUEST => yes|no|the reason`.
fn check(rbac: &Rbac, table: &str) {
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (asked, wanted) = line.split_once(" => ").unwrap();
        let (short, reason) = match rbac.authorize(&request(asked)) {
            Decision::Allow { reason } => ("yes", reason),
            Decision::NoOpinion { reason } | Decision::Deny { reason } => ("no", reason),
        };
        assert!(wanted == short || wanted == reason, "{asked}: {short}, {reason:?}, not {wanted:?}");
    }
}

const ROLES: &str = r#"
kind: ClusterRole
metadata: {name: reader}
rules:
- {verbs: [get, list], apiGroups: [""], resources: [pods, pods/log, "*/scale"]}
- {verbs: [get], apiGroups: [apps], resources: [deployments], resourceNames: [web]}
- {verbs: [get], nonResourceURLs: [/healthz, /logs/*]}
---
kind: Role
metadata: {name: writer, namespace: team}
rules:
- {verbs: ["*"], apiGroups: ["*"], resources: ["*"]}
---
kind: ClusterRoleBinding
metadata: {name: readers}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: User, name: ann}, {kind: Group, name: staff}, {kind: ServiceAccount, name: bot}]
---
kind: RoleBinding
metadata: {name: writers, namespace: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: writer}
subjects: [{kind: User, name: bob}, {kind: ServiceAccount, name: bot}]
---
kind: RoleBinding
metadata: {name: lost, namespace: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: nowhere}
subjects: [{kind: User, name: eve}]
"#;

#[test]
fn requests_are_decided_by_rules_and_bindings() {
    check(
        &cluster(ROLES),
        r#"
        ann get pods team => RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to User "ann"
        x+staff list pods => RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to Group "staff"
        ann get pods/log team => yes
        ann get pods/exec team => no
        ann get deployments/scale team => yes
        ann delete pods team => no
        ann get deployments.apps:web team => yes
        ann get deployments.apps:db team => no
        ann list deployments.apps team => no
        ann get /healthz => yes
        ann get /healthz/etcd => no
        ann get /logs/a/b => yes
        ann post /logs/a => no
        bob delete secrets team => RBAC: allowed by RoleBinding "writers/team" of Role "writer" to User "bob"
        bob delete secrets other => no
        bob delete secrets => no
        system:serviceaccount:team:bot create pods team => RBAC: allowed by RoleBinding "writers/team" of Role "writer" to ServiceAccount "bot/team"
        system:serviceaccount:other:bot create pods team => no
        bot get pods => no
        eve get pods team => RBAC: clusterrole.rbac.authorization.k8s.io "nowhere" not found
        eve get pods => no
        "#,
    );
}

#[test]
fn changes_count_at_once_and_leave_nothing_behind() {
    let mut rbac = cluster(ROLES);
    rbac.apply(RbacKind::ClusterRoleBinding, "", "readers", None);
    check(&rbac, "ann get pods team => no");
    rbac.apply(RbacKind::Role, "team", "writer", None);
    check(&rbac, "bob get pods team => RBAC: role.rbac.authorization.k8s.io \"writer\" not found");
}

#[test]
fn the_default_roles_are_upstreams() {
    let rbac = defaults_cluster();
    check(
        &rbac,
        "
        root+system:masters delete nodes:a => yes
        system:anonymous+system:unauthenticated get /healthz => yes
        system:anonymous+system:unauthenticated get /version => yes
        system:anonymous+system:unauthenticated get /api => no
        system:anonymous+system:unauthenticated get configmaps:cluster-info kube-public => yes
        system:anonymous+system:unauthenticated get configmaps:other kube-public => no
        ann+system:authenticated get /apis/apps/v1 => yes
        ann+system:authenticated create selfsubjectaccessreviews.authorization.k8s.io => yes
        ann+system:authenticated list pods default => no
        system:kube-scheduler create pods/binding default => yes
        system:kube-scheduler delete nodes => no
        system:serviceaccount:kube-system:replicaset-controller create pods default => yes
        system:kube-proxy list services => yes
        system:bootstrap:abcdef+system:bootstrappers:kubeadm:default-node-token create certificatesigningrequests.certificates.k8s.io => yes
        system:bootstrap:abcdef+system:bootstrappers:kubeadm:default-node-token list secrets => no
        ",
    );
    let (roles, bindings) = defaults::all();
    assert!(roles.len() > 70 && bindings.len() > 55, "{} {}", roles.len(), bindings.len());
    let admin = roles.iter().find(|role| role.name == "admin").unwrap().to_object(&roles);
    assert!(admin["rules"].as_array().unwrap().len() > 20, "admin aggregates edit, which aggregates view");
}

#[test]
fn repair_adds_what_is_missing_and_keeps_what_was_added() {
    let (roles, bindings) = defaults::all();
    let wanted = roles.iter().find(|role| role.name == "system:discovery").unwrap().to_object(&roles);
    assert_eq!(defaults::reconcile(&wanted, &wanted), None);
    let mut changed = wanted.clone();
    changed["rules"] = serde_json::json!([{"verbs": ["get"], "nonResourceURLs": ["/mine"]}]);
    let repaired = defaults::reconcile(&changed, &wanted).unwrap();
    assert_eq!(repaired["rules"][0]["nonResourceURLs"][0], "/mine");
    assert_eq!(defaults::reconcile(&repaired, &wanted), None);
    changed["metadata"]["annotations"][defaults::AUTOUPDATE] = "false".into();
    assert_eq!(defaults::reconcile(&changed, &wanted), None);
    let binding = bindings.iter().find(|b| b.name == "cluster-admin").unwrap().to_object();
    let mut emptied = binding.clone();
    emptied["subjects"] = Value::Null;
    assert_eq!(defaults::reconcile(&emptied, &binding).unwrap()["subjects"], binding["subjects"]);
}

#[test]
fn nobody_grants_more_than_they_hold() {
    let rbac = cluster(ROLES);
    let rule = |verbs: &[&str], resource: &str| Rule {
        verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
        api_groups: vec![String::new()],
        resources: vec![resource.to_owned()],
        ..Rule::default()
    };
    let ann = User { name: "ann".to_owned(), groups: vec!["system:authenticated".to_owned()], ..User::default() };
    assert!(escalation::confirm_no_escalation(&rbac, &ann, "", &[rule(&["get"], "pods")]).is_ok());
    assert!(escalation::confirm_no_escalation(&rbac, &ann, "", &[rule(&["list"], "things/scale")]).is_ok());
    let wanted = [rule(&["get", "delete", "create"], "pods"), rule(&["get"], "secrets")];
    assert_eq!(
        escalation::confirm_no_escalation(&rbac, &ann, "", &wanted).unwrap_err(),
        "user \"ann\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"create\"]}\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"
    );
    let full = Rule::full_authority();
    let root = User { name: "root".to_owned(), groups: vec!["system:masters".to_owned()], ..User::default() };
    assert!(escalation::confirm_no_escalation(&defaults_cluster(), &root, "", &full).is_ok());
}

#[test]
fn denials_are_worded_as_upstreams() {
    let message = |text: &str, reason: &str| forbidden(&request(text), reason).message;
    assert_eq!(
        message("ann list pods default", ""),
        "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(
        message("ann get deployments.apps/scale:web team", "why"),
        "deployments.apps \"web\" is forbidden: User \"ann\" cannot get resource \"deployments/scale\" in API group \
         \"apps\" in the namespace \"team\": why"
    );
    assert_eq!(
        message("ann get nodes", ""),
        "nodes is forbidden: User \"ann\" cannot get resource \"nodes\" in API group \"\" at the cluster scope"
    );
    assert_eq!(message("ann get /metrics", ""), "forbidden: User \"ann\" cannot get path \"/metrics\"");
}

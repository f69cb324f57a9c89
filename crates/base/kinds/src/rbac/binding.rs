//! What RoleBinding and ClusterRoleBinding share: columns and defaults.

use serde_json::Value;

use crate::columns;
use crate::json::{child, fill_empty, items, list, text};
use crate::kind::Column;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn columns() -> Vec<Column> {
    vec![
        columns::name(),
        Column::new("Role", "string", "The role it gives.", |o, _| {
            format!("{}/{}", text(o, "roleRef.kind"), text(o, "roleRef.name")).into()
        }),
        columns::age(),
        Column::new("Users", "string", "Users it is given to.", |o, _| subjects(o, "User")).wide(),
        Column::new("Groups", "string", "Groups it is given to.", |o, _| subjects(o, "Group")).wide(),
        Column::new("ServiceAccounts", "string", "Service accounts it is given to.", |o, _| {
            subjects(o, "ServiceAccount")
        })
        .wide(),
    ]
}

fn subjects(binding: &Value, kind: &str) -> Value {
    let name = |subject: &Value| match text(subject, "namespace") {
        namespace if kind == "ServiceAccount" && !namespace.is_empty() => {
            format!("{namespace}/{}", text(subject, "name"))
        }
        _ => text(subject, "name").to_owned(),
    };
    let subjects = list(binding, "subjects").iter().filter(|subject| subject["kind"] == kind);
    subjects.map(name).collect::<Vec<_>>().join(", ").into()
}

pub fn default(binding: &mut Value) {
    if let Some(role) = child(binding, "roleRef") {
        fill_empty(role, "apiGroup", GROUP);
    }
    for subject in items(binding, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            fill_empty(subject, "apiGroup", GROUP);
        }
    }
}

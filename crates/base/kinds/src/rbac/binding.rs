//! What RoleBinding and ClusterRoleBinding share: columns and defaults.

use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use crate::json::{child, fill_empty, items, list, text};
use crate::kind::Column;
use crate::{columns, rules};

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

pub fn validate(binding: &Value, roles: &[&str]) -> FieldErrors {
    let mut errors = Vec::new();
    let path = FieldPath::new("roleRef");
    let role = &binding["roleRef"];
    rules::one_of(&mut errors, role, &path, "apiGroup", &[GROUP]);
    rules::one_of(&mut errors, role, &path, "kind", roles);
    rules::required_name(&mut errors, &path.child("name"), text(role, "name"), names::path_segment);
    for (i, subject) in list(binding, "subjects").iter().enumerate() {
        let path = FieldPath::new("subjects").index(i);
        rules::required(&mut errors, subject, &path, "name");
        match text(subject, "kind") {
            "ServiceAccount" if !roles.contains(&"Role") => rules::required(&mut errors, subject, &path, "namespace"),
            "ServiceAccount" => {}
            "User" | "Group" => rules::one_of(&mut errors, subject, &path, "apiGroup", &[GROUP]),
            other => {
                let kinds = ["ServiceAccount", "User", "Group"];
                errors.push(FieldError::not_supported(&path.child("kind"), other, &kinds));
            }
        }
    }
    errors
}

/// Which role a binding gives never changes.
pub fn validate_update(new: &Value, old: &Value) -> FieldErrors {
    if new["roleRef"] == old["roleRef"] {
        return Vec::new();
    }
    vec![FieldError::invalid(&FieldPath::new("roleRef"), new["roleRef"].clone(), "cannot change roleRef")]
}

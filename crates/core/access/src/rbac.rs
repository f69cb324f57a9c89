//! RBAC as an index from subjects to the bindings that name them, kept up to date one object at a time.
//!
//! A request costs one look-up per group of its user in its namespace and one cluster-wide, whatever the number of
//! roles and bindings. Rejected: compiling a new snapshot on each change, which makes ten thousand bindings cost
//! ten thousand times ten thousand while they are being created.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::attributes::{Attributes, Decision, SERVICE_ACCOUNT_PREFIX, User};
use crate::go;
use crate::rule::Rule;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RbacKind {
    Role,
    ClusterRole,
    RoleBinding,
    ClusterRoleBinding,
}

impl RbacKind {
    /// The kind served under a resource name of the group `rbac.authorization.k8s.io`.
    pub fn of_resource(resource: &str) -> Option<Self> {
        match resource {
            "roles" => Some(Self::Role),
            "clusterroles" => Some(Self::ClusterRole),
            "rolebindings" => Some(Self::RoleBinding),
            "clusterrolebindings" => Some(Self::ClusterRoleBinding),
            _ => None,
        }
    }
}

/// `roleRef` of a binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    pub api_group: String,
    pub kind: String,
    pub name: String,
}

/// An element of `subjects` of a binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Subject {
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

/// What of an RBAC object decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    Role(Arc<[Rule]>),
    Binding { role: RoleRef, subjects: Vec<Subject> },
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Body {
    rules: Option<Vec<Rule>>,
    role_ref: RoleRef,
    subjects: Option<Vec<Subject>>,
}

impl Object {
    /// Reads an API object; answers what is wrong with one that no rule can be made of.
    pub fn from_value(kind: RbacKind, value: &Value) -> Result<Self, String> {
        let body = Body::deserialize(value).map_err(|e| e.to_string())?;
        Ok(match kind {
            RbacKind::Role | RbacKind::ClusterRole => Self::Role(body.rules.unwrap_or_default().into()),
            RbacKind::RoleBinding | RbacKind::ClusterRoleBinding => {
                Self::Binding { role: body.role_ref, subjects: body.subjects.unwrap_or_default() }
            }
        })
    }
}

/// Namespace (empty: cluster-wide) and name.
type Key = (Arc<str>, Arc<str>);

#[derive(Debug)]
struct Binding {
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// Who a binding names: users (service accounts by their user name) and groups.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    User(String),
    Group(String),
}

/// All roles and bindings of a cluster.
#[derive(Debug, Default)]
pub struct Rbac {
    /// Roles by (namespace, name); cluster roles have an empty namespace.
    roles: HashMap<Key, Arc<[Rule]>>,
    bindings: HashMap<Key, Binding>,
    /// The bindings of a namespace (empty: cluster-wide) that name a subject.
    named: HashMap<(Arc<str>, Who), BTreeSet<Arc<str>>>,
}

impl Rbac {
    /// Takes the new state of an object (None: it is gone). Cluster-scoped objects have an empty namespace.
    pub fn apply(&mut self, kind: RbacKind, namespace: &str, name: &str, object: Option<Object>) {
        let key: Key = (namespace.into(), name.into());
        match kind {
            RbacKind::Role | RbacKind::ClusterRole => match object {
                Some(Object::Role(rules)) => {
                    self.roles.insert(key, rules);
                }
                _ => {
                    self.roles.remove(&key);
                }
            },
            RbacKind::RoleBinding | RbacKind::ClusterRoleBinding => {
                self.forget_binding(&key);
                if let Some(Object::Binding { role, subjects }) = object {
                    self.learn_binding(key, Binding { role, subjects });
                }
            }
        }
    }

    fn learn_binding(&mut self, key: Key, binding: Binding) {
        for who in binding.subjects.iter().filter_map(|s| who(s, &key.0)) {
            self.named.entry((key.0.clone(), who)).or_default().insert(key.1.clone());
        }
        self.bindings.insert(key, binding);
    }

    fn forget_binding(&mut self, key: &Key) {
        let Some(binding) = self.bindings.remove(key) else { return };
        for who in binding.subjects.iter().filter_map(|s| who(s, &key.0)) {
            let index = (key.0.clone(), who);
            if let Some(names) = self.named.get_mut(&index) {
                names.remove(&key.1);
                if names.is_empty() {
                    self.named.remove(&index);
                }
            }
        }
    }

    /// Whether some rule allows what is asked. The reason of a yes names the binding, that of no opinion the roles that
    /// bindings name in vain.
    pub fn authorize(&self, asked: &Attributes) -> Decision {
        let mut errors = Vec::new();
        for (namespace, name) in self.bindings_of(&asked.user, &asked.namespace) {
            let Some(binding) = self.bindings.get(&(namespace.clone(), name.clone())) else { continue };
            match self.rules_of(&binding.role, &namespace) {
                Ok(rules) if rules.iter().any(|rule| rule.allows(asked)) => {
                    let reason = format!("RBAC: allowed by {}", describe(&namespace, &name, binding, &asked.user));
                    return Decision::Allow { reason };
                }
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        let reason = if errors.is_empty() { String::new() } else { format!("RBAC: {}", go::aggregate(&errors)) };
        Decision::NoOpinion { reason }
    }

    /// All rules that hold for a user in a namespace (empty: cluster-wide ones only), and the references that lead
    /// nowhere.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        for key in self.bindings_of(user, namespace) {
            let Some(binding) = self.bindings.get(&key) else { continue };
            match self.rules_of(&binding.role, &key.0) {
                Ok(rules) => all.extend(rules.iter().cloned()),
                Err(error) => errors.push(error),
            }
        }
        (all, errors)
    }

    /// The rules behind a `roleRef` in a binding of this namespace.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[Rule]>, String> {
        let (scope, kind) = match role.kind.as_str() {
            "Role" => (namespace, "role"),
            "ClusterRole" => ("", "clusterrole"),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        let found = self.roles.get(&(scope.into(), role.name.as_str().into())).cloned();
        found.ok_or_else(|| format!("{kind}.rbac.authorization.k8s.io {:?} not found", role.name))
    }

    /// Bindings that name the user, cluster-wide ones first, each once.
    fn bindings_of(&self, user: &User, namespace: &str) -> Vec<Key> {
        let mut found = BTreeSet::new();
        let subjects = std::iter::once(Who::User(user.name.clone()));
        let subjects: Vec<Who> = subjects.chain(user.groups.iter().cloned().map(Who::Group)).collect();
        let scopes: &[&str] = if namespace.is_empty() { &[""] } else { &["", namespace] };
        for scope in scopes {
            let scope: Arc<str> = (*scope).into();
            for who in &subjects {
                if let Some(names) = self.named.get(&(scope.clone(), who.clone())) {
                    found.extend(names.iter().map(|name| (scope.clone(), name.clone())));
                }
            }
        }
        found.into_iter().collect()
    }
}

/// A service account without a namespace is one of the binding's own; in a cluster role binding it is nobody.
fn who(subject: &Subject, namespace: &str) -> Option<Who> {
    match subject.kind.as_str() {
        "User" => Some(Who::User(subject.name.clone())),
        "Group" => Some(Who::Group(subject.name.clone())),
        "ServiceAccount" => {
            let own = if subject.namespace.is_empty() { namespace } else { &subject.namespace };
            (!own.is_empty()).then(|| Who::User(format!("{SERVICE_ACCOUNT_PREFIX}{own}:{}", subject.name)))
        }
        _ => None,
    }
}

fn describe(namespace: &str, name: &str, binding: &Binding, user: &User) -> String {
    let applies = |subject: &&Subject| match who(subject, namespace) {
        Some(Who::User(name)) => name == user.name,
        Some(Who::Group(group)) => user.in_group(&group),
        None => false,
    };
    let subject = binding.subjects.iter().find(applies).map_or_else(String::new, |subject| {
        if subject.kind != "ServiceAccount" {
            return format!("{} {:?}", subject.kind, subject.name);
        }
        let own = if subject.namespace.is_empty() { namespace } else { &subject.namespace };
        format!("{} {:?}", subject.kind, format!("{}/{own}", subject.name))
    });
    let (kind, full) = if namespace.is_empty() {
        ("ClusterRoleBinding", name.to_owned())
    } else {
        ("RoleBinding", format!("{name}/{namespace}"))
    };
    format!("{kind} {full:?} of {} {:?} to {subject}", binding.role.kind, binding.role.name)
}

//! Writes that depend on who writes: roles and bindings may not exceed the writer, nodes may not exceed themselves.

use std::sync::Arc;

use access::node_restriction::{self, Objects, Refusal, Write};
use access::rbac::RoleRef;
use access::{Attributes, Rule, User, escalation, node};
use async_trait::async_trait;
use meta::{ApiResult, GroupResource, Status};
use serde::Deserialize;
use serde_json::Value;

use super::Security;
use crate::admission::{Admission, AdmissionRequest, Operation};
use crate::engine::Engine;

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Nobody grants what they do not hold, except with the verbs `escalate` and `bind`.
pub struct RoleEscalation(pub Arc<Security>);

#[async_trait]
impl Admission for RoleEscalation {
    fn name(&self) -> &'static str {
        "RoleEscalation"
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, object: &Value) -> ApiResult<()> {
        let kind = &request.served.kind;
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if kind.group != RBAC_GROUP || !writes || request.user.is_master() {
            return Ok(());
        }
        if request.old.is_some_and(|old| only_for_the_collector(object, old)) {
            return Ok(());
        }
        match kind.plural.as_ref() {
            "roles" | "clusterroles" => self.role(request, object),
            "rolebindings" | "clusterrolebindings" => self.binding(request, object),
            _ => Ok(()),
        }
    }
}

impl RoleEscalation {
    fn role(&self, request: &AdmissionRequest<'_>, object: &Value) -> ApiResult<()> {
        let plural = request.served.kind.plural.as_ref();
        if self.0.allows(&question(request, "escalate", plural, request.name)) {
            return Ok(());
        }
        let rules = Vec::<Rule>::deserialize(&object["rules"]).unwrap_or_default();
        self.confirm(request, &rules)?;
        let aggregates = |object: &Value| {
            object["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|list| !list.is_empty())
        };
        if aggregates(object) || request.old.is_some_and(aggregates) {
            let all = self.confirm(request, &Rule::full_authority());
            return all.map_err(|_| forbidden(request, escalation::AGGREGATION_DENIED));
        }
        Ok(())
    }

    fn binding(&self, request: &AdmissionRequest<'_>, object: &Value) -> ApiResult<()> {
        let role = RoleRef::deserialize(&object["roleRef"]).unwrap_or_default();
        let plural = if role.kind == "Role" { "roles" } else { "clusterroles" };
        if self.0.allows(&question(request, "bind", plural, &role.name)) {
            return Ok(());
        }
        let rules = self.0.indexes.rbac(request.engine, |rbac| rbac.rules_of(&role, request.namespace));
        let missing = |_| Status::not_found(&GroupResource::new(RBAC_GROUP, plural.to_owned()), &role.name);
        self.confirm(request, &rules.map_err(missing)?)
    }

    fn confirm(&self, request: &AdmissionRequest<'_>, rules: &[Rule]) -> ApiResult<()> {
        let check =
            |rbac: &access::Rbac| escalation::confirm_no_escalation(rbac, request.user, request.namespace, rules);
        self.0.indexes.rbac(request.engine, check).map_err(|why| forbidden(request, &why))
    }
}

/// Whether only what the garbage collector writes differs.
fn only_for_the_collector(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["finalizers", "ownerReferences", "managedFields", "resourceVersion", "generation"] {
                metadata.remove(field);
            }
        }
        object
    };
    rest(new) == rest(old)
}

fn question(request: &AdmissionRequest<'_>, verb: &str, plural: &str, name: &str) -> Attributes {
    Attributes {
        user: request.user.clone(),
        verb: verb.to_owned(),
        group: RBAC_GROUP.to_owned(),
        version: "*".to_owned(),
        resource: plural.to_owned(),
        namespace: request.namespace.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    }
}

pub(super) fn forbidden(request: &AdmissionRequest<'_>, why: &str) -> Box<Status> {
    Status::forbidden(&request.served.resource(), request.name, why)
}

/// What a kubelet writes stays within its node.
pub struct NodeRestriction;

#[async_trait]
impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, object: &Value) -> ApiResult<()> {
        if node_of(request.user).is_none() {
            return Ok(());
        }
        let operation = match request.operation {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete => "delete",
            Operation::Connect => return Ok(()),
        };
        let is_delete = request.operation == Operation::Delete;
        let write = Write {
            operation,
            group: &request.served.kind.group,
            resource: &request.served.kind.plural,
            subresource: request.subresource,
            namespace: request.namespace,
            name: request.name,
            new: (!is_delete).then_some(object),
            old: if is_delete { request.old.or(Some(object)) } else { request.old },
        };
        restrict(request.engine, request.user, &write, &request.served.resource())
    }
}

/// Refuses what a kubelet may not write; has nothing against other users.
pub(super) fn restrict(engine: &Engine, user: &User, write: &Write<'_>, resource: &GroupResource) -> ApiResult<()> {
    let Some(node) = node_of(user) else { return Ok(()) };
    node_restriction::admit(node, write, &Known(engine)).map_err(|refusal| match refusal {
        Refusal::Forbidden(why) => Status::forbidden(resource, write.name, &why),
        Refusal::NotFound { resource, name } => Status::not_found(&GroupResource::new("", resource), &name),
    })
}

fn node_of(user: &User) -> Option<&str> {
    node::node_name(user).filter(|_| !user.is_master())
}

struct Known<'a>(&'a Engine);

impl Objects for Known<'_> {
    fn pod(&self, namespace: &str, name: &str) -> Option<Value> {
        self.0.cached("", "pods", namespace, name).and_then(|pod| pod.value().ok())
    }

    fn node(&self, name: &str) -> Option<Value> {
        self.0.cached("", "nodes", "", name).and_then(|node| node.value().ok())
    }
}

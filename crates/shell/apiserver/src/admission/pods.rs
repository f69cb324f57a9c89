//! What every new pod and node gets from the cluster: account and token, priority, outage tolerations, a taint.

use std::sync::Arc;

use access::admission::{nodes, pod_resize, priority, runtime_class, service_account, tolerations};
use async_trait::async_trait;
use meta::{ApiResult, Cause, GroupResource, Status};
use rand::Rng;
use serde_json::Value;

use super::{Admission, AdmissionRequest, Operation};
use crate::cache::Object;
use crate::engine::Engine;

/// Letters of the volume names that are made here, as in generated object names.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_CHARS: usize = 5;

fn is(request: &AdmissionRequest<'_>, resource: &str) -> bool {
    let kind = &request.served.kind;
    request.subresource.is_empty() && kind.group.is_empty() && kind.plural == resource
}

fn suffix() -> String {
    let mut rng = rand::rng();
    (0..SUFFIX_CHARS).map(|_| char::from(SUFFIX_LETTERS[rng.random_range(0..SUFFIX_LETTERS.len())])).collect()
}

/// An object from the cache; where it is missing, from a cache that is as new as this request.
async fn find(engine: &Engine, group: &str, plural: &str, at: (&str, &str)) -> ApiResult<Option<Value>> {
    let mut found: Option<Arc<Object>> = engine.cached(group, plural, at.0, at.1);
    if found.is_none() {
        engine.cache.wait_current().await?;
        found = engine.cached(group, plural, at.0, at.1);
    }
    found.map(|object| object.value()).transpose()
}

fn forbidden(request: &AdmissionRequest<'_>, why: &str) -> Box<Status> {
    Status::forbidden(&GroupResource::new("", "pods"), request.name, why)
}

/// Names the service account of a pod and mounts its token.
pub struct ServiceAccount;

#[async_trait]
impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> ApiResult<()> {
        if !is(request, "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        let Some(name) = service_account::settle_name(pod) else { return Ok(()) };
        let place = (request.namespace, name.as_str());
        let Some(account) = find(request.engine, "", "serviceaccounts", place).await? else {
            let at = format!("{}/{name}", request.namespace);
            let why = format!("error looking up service account {at}: serviceaccount {name:?} not found");
            return Err(forbidden(request, &why));
        };
        service_account::apply(pod, &account, &suffix());
        Ok(())
    }
}

/// Turns the name of a PriorityClass into a number.
pub struct Priority;

#[async_trait]
impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> ApiResult<()> {
        if !is(request, "pods") {
            return Ok(());
        }
        match (request.operation, request.old) {
            (Operation::Create, _) => self.resolve(request, pod).await,
            (Operation::Update, Some(old)) => {
                keep(pod, old, "priority");
                keep(pod, old, "preemptionPolicy");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, class: &Value) -> ApiResult<()> {
        let kind = &request.served.kind;
        if kind.group != PRIORITY_GROUP || kind.plural != PRIORITY_CLASSES || !request.subresource.is_empty() {
            return Ok(());
        }
        let refuse = |why: &str| Err(Status::forbidden(&request.served.resource(), request.name, why));
        match request.operation {
            Operation::Delete if priority::is_system_class(request.name) => {
                refuse("this is a system priority class and cannot be deleted")
            }
            Operation::Create | Operation::Update if class["globalDefault"] == true => {
                let default = default_class(request.engine);
                let name = default.as_ref().map(|class| class["metadata"]["name"].as_str().unwrap_or_default());
                match name.filter(|name| request.operation == Operation::Create || *name != request.name) {
                    Some(name) => refuse(&format!(
                        "PriorityClass {name} is already marked as default. Only one default can exist"
                    )),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// Refuses a resize that the pod's node could never grant.
pub struct PodResizeValidator;

#[async_trait]
impl Admission for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, pod: &Value) -> ApiResult<()> {
        let kind = &request.served.kind;
        let resizes = kind.group.is_empty() && kind.plural == "pods" && request.subresource == "resize";
        let changed = request.old.is_some_and(|old| old["spec"] != pod["spec"]);
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if !resizes || request.operation != Operation::Update || !changed || node.is_empty() {
            return Ok(());
        }
        let Some(found) = find(request.engine, "", "nodes", ("", node)).await? else {
            return Err(forbidden(request, &format!("node {node:?} not found")));
        };
        pod_resize::judge(pod, &found, node).map_err(|refusal| {
            let mut status = forbidden(request, &refusal.why);
            let cause = Cause { reason: refusal.cause.to_owned(), ..Cause::default() };
            status.details.get_or_insert_default().causes.push(cause);
            status
        })
    }
}

const PRIORITY_GROUP: &str = "scheduling.k8s.io";
const PRIORITY_CLASSES: &str = "priorityclasses";

fn default_class(engine: &Engine) -> Option<Value> {
    let classes = engine.snapshot(PRIORITY_GROUP, PRIORITY_CLASSES);
    priority::default_class(classes.objects.values().filter_map(|class| class.value().ok()))
}

/// An update that leaves out what admission had filled in keeps it.
fn keep(pod: &mut Value, old: &Value, field: &str) {
    let before = &old["spec"][field];
    if !before.is_null()
        && pod["spec"][field].is_null()
        && let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.insert(field.to_owned(), before.clone());
    }
}

impl Priority {
    async fn resolve(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> ApiResult<()> {
        let name = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
        let (named, default) = if name.is_empty() {
            (None, default_class(request.engine))
        } else {
            (find(request.engine, PRIORITY_GROUP, PRIORITY_CLASSES, ("", &name)).await?, None)
        };
        priority::resolve(pod, named.as_ref(), default.as_ref()).map_err(|why| forbidden(request, &why))
    }
}

/// Lets pods outlive a short outage of their node.
pub struct DefaultTolerationSeconds;

#[async_trait]
impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> ApiResult<()> {
        if is(request, "pods") && matches!(request.operation, Operation::Create | Operation::Update) {
            tolerations::default_seconds(pod);
        }
        Ok(())
    }
}

/// Gives a pod the overhead and the scheduling rules of its RuntimeClass.
pub struct RuntimeClass;

#[async_trait]
impl Admission for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> ApiResult<()> {
        if !is(request, "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        let name = pod["spec"]["runtimeClassName"].as_str().unwrap_or_default().to_owned();
        let class = match name.as_str() {
            "" => None,
            name => Some(
                find(request.engine, "node.k8s.io", "runtimeclasses", ("", name))
                    .await?
                    .ok_or_else(|| forbidden(request, &format!("pod rejected: RuntimeClass {name:?} not found")))?,
            ),
        };
        runtime_class::apply(pod, class.as_ref()).map_err(|why| forbidden(request, &why))
    }
}

/// Keeps pods away from a new node until it is ready.
pub struct TaintNodesByCondition;

#[async_trait]
impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, node: &mut Value) -> ApiResult<()> {
        if is(request, "nodes") && request.operation == Operation::Create {
            nodes::taint_new_node(node);
        }
        Ok(())
    }
}

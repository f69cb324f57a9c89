//! `pods/binding`: a scheduler gives a pod to a node, once.

use http::Response;
use meta::{ApiResult, FieldError, FieldPath, GroupResource, Status};
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::{Call, WriteOptions};
use crate::limits::WRITE_RETRIES_MAX;
use crate::verbs::metadata;

pub async fn bind(call: &Call<'_>, name: &str, binding: &Value, options: &WriteOptions) -> ApiResult<Response<Body>> {
    super::check_name(binding, name)?;
    let target = binding.pointer("/target/name").and_then(Value::as_str).unwrap_or("");
    let kind = binding.pointer("/target/kind").and_then(Value::as_str).unwrap_or("");
    let root = FieldPath::new("target");
    let error = if !matches!(kind, "" | "Node") {
        Some(FieldError::not_supported(&root.child("kind"), kind, &["Node", "<empty>"]))
    } else if target.is_empty() {
        Some(FieldError::required(&root.child("name"), ""))
    } else {
        None
    };
    if let Some(error) = error {
        return Err(Status::invalid("", "Binding", name, &[error]));
    }
    for _ in 0..WRITE_RETRIES_MAX {
        let old = call.engine.read_existing(call.served, call.namespace(), name).await?;
        let new = bound(name, &old.value, binding, target)?;
        if options.dry_run || call.engine.replace(call.served, (call.namespace(), name), &old, &new).await?.is_some() {
            return super::done(call);
        }
    }
    Err(Status::modified(&call.served.resource(), name))
}

fn bound(name: &str, old: &Value, binding: &Value, target: &str) -> ApiResult<Value> {
    let conflict = |why: &str| Status::conflict(&GroupResource::new("", "pods/binding"), name, why);
    let (uid, own) = (metadata::text(binding, "uid"), metadata::text(old, "uid"));
    if !uid.is_empty() && uid != own {
        return Err(conflict(&format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own}")));
    }
    if metadata::metadata(old).contains_key("deletionTimestamp") {
        return Err(conflict(&format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let node = old.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("");
    if !node.is_empty() {
        return Err(conflict(&format!("pod {name} is already assigned to node {node:?}")));
    }
    if old.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
        return Err(conflict(&format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut new = old.clone();
    new["spec"]["nodeName"] = target.into();
    for field in ["annotations", "labels"] {
        let given = metadata::metadata(binding).get(field).and_then(Value::as_object).cloned().unwrap_or_default();
        if let Some(metadata) = metadata::metadata_mut(&mut new).filter(|_| !given.is_empty()) {
            let own = metadata.entry(field).or_insert_with(|| json!({}));
            own.as_object_mut().into_iter().for_each(|own| own.extend(given.clone()));
        }
    }
    // What was promised is kept now.
    if let Some(status) = new.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("nominatedNodeName");
    }
    set_condition(&mut new, json!({"type": "PodScheduled", "status": "True"}));
    Ok(new)
}

/// Puts a condition in the place of the one of its type; its transition time changes only with its status.
pub fn set_condition(pod: &mut Value, mut condition: Value) {
    let Some(fields) = pod.as_object_mut() else { return };
    let status = fields.entry("status").or_insert_with(|| json!({}));
    let Some(status) = status.as_object_mut() else { return };
    let Some(list) = status.entry("conditions").or_insert_with(|| json!([])).as_array_mut() else { return };
    let known = list.iter_mut().find(|known| known["type"] == condition["type"]);
    let same = known.as_ref().filter(|known| known["status"] == condition["status"]);
    condition["lastTransitionTime"] =
        same.and_then(|known| known.get("lastTransitionTime").cloned()).unwrap_or_else(|| metadata::now().into());
    condition["lastProbeTime"] = Value::Null;
    match known {
        Some(known) => *known = condition,
        None => list.push(condition),
    }
}

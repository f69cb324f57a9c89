//! Subresources through which a write changes one part of its object and nothing else.

use meta::{ApiResult, Status};
use serde_json::Value;

use crate::verbs::{metadata, update};

type Take = fn(&Value, &Value) -> ApiResult<Value>;

/// What a write through a subresource takes from the given object.
pub fn taken(subresource: &str) -> Option<Take> {
    match subresource {
        "finalize" => Some(finalize),
        "ephemeralcontainers" => Some(ephemeral_containers),
        "resize" => Some(resize),
        "approval" => Some(approval),
        _ => None,
    }
}

fn with(old: &Value, part: &str, field: &str, value: Option<&Value>) -> Value {
    let mut new = old.clone();
    let Some(fields) = new.as_object_mut() else { return new };
    let part = fields.entry(part).or_insert_with(|| Value::Object(serde_json::Map::new()));
    match (part.as_object_mut(), value) {
        (Some(part), Some(value)) => drop(part.insert(field.to_owned(), value.clone())),
        (Some(part), None) => drop(part.remove(field)),
        (None, _) => {}
    }
    new
}

/// The namespace controller takes its finalizer out when the namespace is empty.
fn finalize(old: &Value, given: &Value) -> ApiResult<Value> {
    Ok(with(old, "spec", "finalizers", given.pointer("/spec/finalizers")))
}

/// Debug containers may be added to a running pod, never changed or removed.
fn ephemeral_containers(old: &Value, given: &Value) -> ApiResult<Value> {
    const PATH: &str = "/spec/ephemeralContainers";
    let list = |pod: &Value| pod.pointer(PATH).and_then(Value::as_array).cloned().unwrap_or_default();
    let (before, after) = (list(old), list(given));
    let kept = before.iter().all(|container| after.contains(container));
    if !kept {
        let field = meta::FieldPath::new("spec").child("ephemeralContainers");
        let error = meta::FieldError::forbidden(&field, "existing ephemeral containers may not be changed or removed");
        return Err(Status::invalid("", "Pod", metadata::text(old, "name"), &[error]));
    }
    Ok(with(old, "spec", "ephemeralContainers", given.pointer(PATH)))
}

/// Resources of containers and of the pod may change while it runs.
fn resize(old: &Value, given: &Value) -> ApiResult<Value> {
    kinds::core::resized_pod(given, old)
        .map_err(|errors| Status::invalid("", "Pod", metadata::text(old, "name"), &errors))
}

/// An approver sets conditions; the certificate is the signer's.
fn approval(old: &Value, given: &Value) -> ApiResult<Value> {
    let mut conditions = given.pointer("/status/conditions").cloned();
    for condition in conditions.iter_mut().filter_map(Value::as_array_mut).flatten().filter_map(Value::as_object_mut) {
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            if condition.get(field).is_none_or(Value::is_null) {
                condition.insert(field.to_owned(), metadata::now().into());
            }
        }
    }
    let mut new = with(old, "status", "conditions", conditions.as_ref());
    update::take_metadata(&mut new, given);
    Ok(new)
}

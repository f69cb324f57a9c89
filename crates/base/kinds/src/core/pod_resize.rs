//! What a resize may change in a pod: CPU and memory of its containers and of itself, within its quality-of-service class.

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::Value;

use super::pod_rules::tidy;
use super::qos::qos_class;
use crate::json::{list, remove, set, text};

const MIRROR: &str = "kubernetes.io/config.mirror";
/// How upstream writes a path without a name.
const NOWHERE: &str = "[]";
const ONLY: &str = "only cpu and memory resources are mutable";

/// What a write through the `resize` subresource makes of a pod: resources and resize policies are the new ones, all else
/// stays as it was.
///
/// # Errors
/// What may not change so.
pub fn resized_pod(given: &Value, old: &Value) -> Result<Value, FieldErrors> {
    if !old["metadata"]["annotations"][MIRROR].is_null() {
        return Err(vec![FieldError::forbidden(&FieldPath::new(NOWHERE), "static pods cannot be resized")]);
    }
    if text(old, "spec.os.name") == "windows" {
        return Err(vec![FieldError::forbidden(&FieldPath::new(NOWHERE), "windows pods cannot be resized")]);
    }
    let mut errors = Vec::new();
    let path = FieldPath::new("spec");
    let class = match text(old, "status.qosClass") {
        "" => qos_class(&old["spec"]),
        class => class,
    };
    if class != qos_class(&given["spec"]) {
        errors.push(FieldError::invalid(&path, class, "Pod QOS Class may not change as a result of resizing"));
    }
    whole(&mut errors, &given["spec"], &old["spec"], &path.child("resources"));
    let known = errors.len();
    order(&mut errors, &given["spec"], &old["spec"], &path);
    if errors.len() > known {
        return Err(errors);
    }
    let mut new = old.clone();
    match &given["spec"]["resources"] {
        Value::Null => {}
        whole => set(&mut new["spec"], "resources", whole.clone()),
    }
    for field in ["initContainers", "containers"] {
        let Some(containers) = new["spec"].get_mut(field).and_then(Value::as_array_mut) else { continue };
        let given = list(&given["spec"], field);
        for (index, (one, given)) in containers.iter_mut().zip(given).enumerate() {
            let path = path.child(field).index(index);
            container(&mut errors, given, one, field == "initContainers", &path);
            take(one, given);
        }
    }
    if errors.is_empty() { Ok(new) } else { Err(errors) }
}

fn take(container: &mut Value, given: &Value) {
    match &given["resources"] {
        Value::Null => remove(container, "resources"),
        resources => set(container, "resources", resources.clone()),
    }
}

/// The pod's own resources: changed or added to, never taken away.
fn whole(errors: &mut FieldErrors, new: &Value, old: &Value, path: &FieldPath) {
    let (new, old) = (&new["resources"], &old["resources"]);
    if old.is_object() && !new.is_object() {
        errors.push(FieldError::forbidden(path, "pod-level resources cannot be removed"));
        return;
    }
    kept(errors, new, old, path, "pod-level resource");
    if others(new) != others(old) {
        errors.push(FieldError::forbidden(
            &FieldPath::new("spec"),
            "only cpu and memory resources are mutable at pod-level",
        ));
    }
}

/// Requests and limits may not disappear.
fn kept(errors: &mut FieldErrors, new: &Value, old: &Value, path: &FieldPath, what: &str) {
    for field in ["requests", "limits"] {
        let Some(then) = old[field].as_object() else { continue };
        if then.keys().any(|name| new[field][name].is_null()) {
            errors.push(FieldError::forbidden(&path.child(field), format!("{what} {field} cannot be removed")));
        }
    }
}

/// All that is not CPU or memory.
fn others(resources: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for field in ["requests", "limits"] {
        let amounts = resources[field].as_object().into_iter().flatten();
        let fixed = amounts.filter(|(name, _)| !matches!(name.as_str(), "cpu" | "memory"));
        all.extend(fixed.map(|(name, amount)| (field.to_owned(), name.clone(), amount.clone())));
    }
    let claims = list(resources, "claims").iter();
    all.extend(claims.map(|claim| ("claims".to_owned(), text(claim, "name").to_owned(), claim.clone())));
    all
}

/// Containers stay who and where they are.
fn order(errors: &mut FieldErrors, new: &Value, old: &Value, path: &FieldPath) {
    for field in ["containers", "initContainers"] {
        let (now, then) = (list(new, field), list(old, field));
        let path = path.child(field);
        if now.len() != then.len() {
            errors.push(FieldError::forbidden(&path, format!("{field} may not be added or removed on resize")));
            continue;
        }
        for (index, (now, then)) in now.iter().zip(then).enumerate() {
            if text(now, "name") != text(then, "name") {
                let why = format!("{field} may not be renamed or reordered on resize");
                errors.push(FieldError::forbidden(&path.index(index).child("name"), why));
            }
        }
    }
}

fn container(errors: &mut FieldErrors, new: &Value, old: &Value, init: bool, path: &FieldPath) {
    kept(errors, &new["resources"], &old["resources"], &path.child("resources"), "resource");
    let fixed = |container: &Value| (others(&container["resources"]), tidy(&container["resizePolicy"]));
    if fixed(new) != fixed(old) {
        let (path, why) = match init {
            true => (path.clone(), "only cpu and memory resources for init or sidecar containers are mutable"),
            false => (FieldPath::new("spec"), ONLY),
        };
        errors.push(FieldError::forbidden(&path, why));
    }
    let restarts = |policy: &Value| policy["restartPolicy"] == "RestartContainer";
    let changed = tidy(&new["resources"]) != tidy(&old["resources"]);
    if init && changed && new["restartPolicy"] != "Always" && list(new, "resizePolicy").iter().any(restarts) {
        let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
        errors.push(FieldError::forbidden(path, why));
    }
}

//! What a pod as a whole may ask for, beside what its containers do.

use meta::quantity::Quantity;
use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::Value;

use super::pod_defaults::sum_over_containers;
use super::{container_rules, resource_rules};
use crate::json::{list, map, text};

/// Rules of `spec.resources`.
pub fn validate(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let whole = &spec["resources"];
    if whole.is_null() {
        return;
    }
    if text(spec, "os.name") == "windows" {
        errors.push(FieldError::forbidden(path, "may not be set for a windows pod"));
        return;
    }
    if !whole["claims"].is_null() {
        let why = "claims may not be set for Resources at pod-level";
        errors.push(FieldError::forbidden(&path.child("claims"), why));
    }
    container_rules::resources(errors, whole, path, resource_rules::pod_name);
    sums(errors, spec, path);
    for (index, container) in list(spec, "containers").iter().enumerate() {
        for (name, limit) in map(container, "resources.limits").into_iter().flatten() {
            let Some((own, whole)) = pair(limit, &whole["limits"][name]).filter(|(own, whole)| own > whole) else {
                continue;
            };
            let path = path.child("containers").index(index).key(name).child("limits");
            let why = format!("must be less than or equal to pod limits of {whole}");
            errors.push(FieldError::invalid(&path, own.to_string(), why));
        }
    }
}

/// The whole is no less than its containers together: in requests, and in limits of what cannot be overcommitted.
fn sums(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    for side in ["requests", "limits"] {
        for (name, whole) in map(&spec["resources"], side).into_iter().flatten() {
            if side == "limits" && !name.starts_with("hugepages-") {
                continue;
            }
            let (Ok(whole), Some(sum)) = (Quantity::from_value(whole), sum_over_containers(spec, side, name)) else {
                continue;
            };
            if sum > whole {
                let why = format!("must be greater than or equal to aggregate container {side} of {sum}");
                errors.push(FieldError::invalid(&path.child(side).key(name), whole.to_string(), why));
            }
        }
    }
}

fn pair(own: &Value, whole: &Value) -> Option<(Quantity, Quantity)> {
    Some((Quantity::from_value(own).ok()?, Quantity::from_value(whole).ok()?))
}

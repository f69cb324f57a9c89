//! Names and amounts of resources where containers, quotas and ranges name them.

use meta::quantity::Quantity;
use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use crate::rules::{self, NOT_NEGATIVE};

const CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Any size of huge pages comes after its prefix.
const POD: [&str; 3] = ["cpu", "hugepages-", "memory"];
const QUOTA: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// Counted in whole objects.
const COUNTS: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const REQUESTS: &str = "requests.";

/// Kubernetes' own resource: unprefixed, or in a kubernetes.io domain.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A resource that device plugins offer.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with(REQUESTS) && names::qualified_name(&format!("{REQUESTS}{name}")).is_empty()
}

/// Whether more may be limited than is requested.
pub fn overcommits(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

/// A resource that quotas know by a name without a domain.
pub fn is_quota_standard(name: &str) -> bool {
    QUOTA.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

/// The name of any resource.
pub fn name(errors: &mut FieldErrors, name: &str, path: &FieldPath) {
    let before = errors.len();
    rules::name(errors, path, name, names::qualified_name);
    if errors.len() == before && !name.contains('/') && !is_quota_standard(name) && name != "storage" {
        errors.push(FieldError::invalid(path, name, "must be a standard resource type or fully qualified"));
    }
}

/// The name of a resource that a container may ask for.
pub fn container_name(errors: &mut FieldErrors, resource: &str, path: &FieldPath) {
    name(errors, resource, path);
    if !resource.contains('/') {
        if !CONTAINER.contains(&resource) && !resource.starts_with("hugepages-") {
            errors.push(FieldError::invalid(path, resource, "must be a standard resource for containers"));
        }
    } else if !is_native(resource) && !is_extended(resource) {
        errors.push(FieldError::invalid(path, resource, "doesn't follow extended resource name standard"));
    }
}

/// The name of a resource that a pod as a whole may ask for.
pub fn pod_name(errors: &mut FieldErrors, resource: &str, path: &FieldPath) {
    let before = errors.len();
    name(errors, resource, path);
    if errors.len() == before && !POD.contains(&resource) && !resource.starts_with("hugepages-") {
        errors.push(FieldError::not_supported(path, resource, &POD));
    }
}

/// The name of a resource that a quota may limit.
pub fn quota_name(errors: &mut FieldErrors, resource: &str, path: &FieldPath) {
    name(errors, resource, path);
    if !resource.contains('/') && !is_quota_standard(resource) {
        errors.push(FieldError::invalid(path, resource, "must be a standard resource for quota"));
    }
}

/// An amount: not negative, and whole where objects or devices are counted.
pub fn amount(errors: &mut FieldErrors, resource: &str, value: &Value, path: &FieldPath) {
    let Ok(amount) = Quantity::from_value(value) else { return };
    if amount.is_negative() {
        errors.push(FieldError::invalid(path, amount.to_string(), NOT_NEGATIVE));
    }
    if (COUNTS.contains(&resource) || is_extended(resource)) && !amount.is_whole() {
        errors.push(FieldError::invalid(path, amount.to_string(), "must be an integer"));
    }
}

//! The rules for `metadata` that hold for every kind, in upstream's words.

use meta::{FieldError, FieldErrors, FieldPath, GroupVersion, labels, names};
use serde_json::{Map, Value};

use super::metadata;
use crate::limits::ANNOTATIONS_BYTES_MAX;
use crate::registry::Served;

/// Groups whose objects follow the generic rules alone: any qualified name is a finalizer.
const GENERIC_GROUPS: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];
/// Finalizers that need no domain in front.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Rules for the metadata of any object.
pub fn validate(served: &Served, value: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let root = FieldPath::new("metadata");
    let metadata = metadata::metadata(value);
    validate_names(served, value, &root, &mut errors);
    if let Some(given) = metadata.get("labels") {
        errors.extend(labels::validate_labels(given, &root.child("labels")));
    }
    if let Some(Value::Object(annotations)) = metadata.get("annotations") {
        validate_annotations(annotations, &root.child("annotations"), &mut errors);
    }
    validate_owners(metadata.get("ownerReferences"), &root.child("ownerReferences"), &mut errors);
    validate_finalizers(served, &metadata::finalizers(value), &root.child("finalizers"), &mut errors);
    errors
}

/// Kinds whose updates must name the version that they start from; others may be written blindly.
const CONDITIONAL_UPDATE: [(&str, &str); 16] = [
    ("", "serviceaccounts"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "apiservices"),
    ("coordination.k8s.io", "leases"),
    ("node.k8s.io", "runtimeclasses"),
    ("policy", "poddisruptionbudgets"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "csistoragecapacities"),
    ("storage.k8s.io", "volumeattachments"),
];

/// Kinds that a PUT creates where nothing is.
const CREATED_BY_UPDATE: [(&str, &str); 9] = [
    ("", "endpoints"),
    ("", "events"),
    ("", "limitranges"),
    ("", "services"),
    ("coordination.k8s.io", "leases"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
];

fn is_among(served: &Served, list: &[(&str, &str)]) -> bool {
    list.iter().any(|(group, plural)| served.kind.group == *group && served.kind.plural == *plural)
}

/// Whether a PUT creates an object that is not there.
pub fn is_created_by_update(served: &Served) -> bool {
    is_among(served, &CREATED_BY_UPDATE)
}

/// The error for an update that names no version, where its kind wants one.
pub fn validate_version(served: &Served, value: &Value) -> Option<FieldError> {
    if !metadata::text(value, "resourceVersion").is_empty()
        || !(served.custom.is_some() || is_among(served, &CONDITIONAL_UPDATE))
    {
        return None;
    }
    let path = FieldPath::new("metadata").child("resourceVersion");
    Some(FieldError::invalid(&path, 0, "must be specified for an update"))
}

fn validate_names(served: &Served, value: &Value, root: &FieldPath, errors: &mut FieldErrors) {
    let generate = metadata::text(value, "generateName");
    if !generate.is_empty() {
        // A trailing dash is fine in front of the suffix to come.
        let masked = generate.strip_suffix('-').map_or(generate.to_owned(), |base| format!("{base}a"));
        for why in (served.kind.validate_name)(&masked) {
            errors.push(FieldError::invalid(&root.child("generateName"), generate, why));
        }
    }
    let name = metadata::text(value, "name");
    if name.is_empty() {
        errors.push(FieldError::required(&root.child("name"), "name or generateName is required"));
        return;
    }
    for why in (served.kind.validate_name)(name) {
        errors.push(FieldError::invalid(&root.child("name"), name, why));
    }
}

fn validate_annotations(annotations: &Map<String, Value>, path: &FieldPath, errors: &mut FieldErrors) {
    for key in annotations.keys() {
        // Letters of either case have always been allowed in front of the slash.
        for why in names::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid(path, key.as_str(), why));
        }
    }
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_BYTES_MAX));
    }
}

fn validate_owners(owners: Option<&Value>, path: &FieldPath, errors: &mut FieldErrors) {
    let owners = owners.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut controller: Option<&str> = None;
    for owner in owners {
        let text = |field: &str| owner[field].as_str().unwrap_or("");
        let version = GroupVersion::parse(text("apiVersion"));
        if version.is_none_or(|version| version.version.is_empty()) {
            errors.push(FieldError::invalid(
                &path.child("apiVersion"),
                text("apiVersion"),
                "version must not be empty",
            ));
        }
        if text("apiVersion") == "v1" && text("kind") == "Event" {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path, owner.clone(), why));
        }
        for (field, why) in [("kind", "must not be empty"), ("name", "must not be empty"), ("uid", "must not be empty")]
        {
            if text(field).is_empty() {
                errors.push(FieldError::invalid(&path.child(field), "", why));
            }
        }
        if owner["controller"] == true {
            if let Some(first) = controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                    text("name")
                );
                errors.push(FieldError::invalid(path, owners.to_vec(), why));
            } else {
                controller = Some(text("name"));
            }
        }
    }
}

fn validate_finalizers(served: &Served, finalizers: &[String], path: &FieldPath, errors: &mut FieldErrors) {
    for finalizer in finalizers {
        for why in names::qualified_name(finalizer) {
            errors.push(FieldError::invalid(path, finalizer.as_str(), why));
        }
        let is_plain = !finalizer.contains('/')
            && !STANDARD_FINALIZERS.contains(&finalizer.as_str())
            && !GENERIC_GROUPS.contains(&served.kind.group.as_ref());
        if served.custom.is_none() && is_plain {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(path, finalizer.as_str(), why));
        }
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(path, finalizers.to_vec(), why));
    }
}

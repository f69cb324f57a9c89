//! The pod that a template describes, as its owner makes it; names and what is particular are the owner's to add.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Value, json};

use crate::ownership::Owner;
use crate::plan::to_value;

/// Labels, annotations and finalizers come from the template, the owner reference from `owner`.
pub(crate) fn pod_of(template: &PodTemplateSpec, owner: &Owner) -> Value {
    let mut metadata = json!({ "ownerReferences": [owner.reference()] });
    if let Some(meta) = &template.metadata {
        if let Some(labels) = &meta.labels {
            metadata["labels"] = to_value(labels);
        }
        if let Some(annotations) = &meta.annotations {
            metadata["annotations"] = to_value(annotations);
        }
        if let Some(finalizers) = &meta.finalizers {
            metadata["finalizers"] = to_value(finalizers);
        }
    }
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": to_value(&template.spec) })
}

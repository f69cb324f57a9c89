//! storage.k8s.io/v1 StorageClass: a way to provision storage.

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::Value;

use super::V1;
use crate::json::{fill, flag, text};
use crate::kind::{Column, Kind, texts};
use crate::{columns, rules};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["sc"]),
        columns: vec![
            columns::default_marked_name(),
            Column::new("Provisioner", "string", "Who makes its volumes.", |o, _| text(o, "provisioner").into()),
            Column::new("ReclaimPolicy", "string", "What happens when a claim goes.", |o, _| {
                text(o, "reclaimPolicy").into()
            }),
            Column::new("VolumeBindingMode", "string", "When a volume is chosen.", |o, _| {
                text(o, "volumeBindingMode").into()
            }),
            Column::new("AllowVolumeExpansion", "string", "Whether volumes can grow.", |o, _| {
                flag(o, "allowVolumeExpansion").into()
            }),
            columns::age(),
        ]
        .into(),
        default,
        validate,
        validate_update,
        ..Kind::cluster(V1, "StorageClass", "storageclasses")
    }
}

fn default(class: &mut Value) {
    fill(class, "reclaimPolicy", "Delete");
    fill(class, "volumeBindingMode", "Immediate");
}

fn validate(class: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let root = FieldPath::default();
    rules::required(&mut errors, class, &root, "provisioner");
    rules::one_of(&mut errors, class, &root, "reclaimPolicy", &["Delete", "Retain"]);
    rules::one_of(&mut errors, class, &root, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]);
    errors
}

fn validate_update(new: &Value, old: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    if new["parameters"] != old["parameters"] {
        let path = FieldPath::new("parameters");
        errors.push(FieldError::forbidden(&path, "updates to parameters are forbidden."));
    }
    if new["provisioner"] != old["provisioner"] {
        let path = FieldPath::new("provisioner");
        errors.push(FieldError::forbidden(&path, "updates to provisioner are forbidden."));
    }
    if new["reclaimPolicy"] != old["reclaimPolicy"] {
        let path = FieldPath::new("reclaimPolicy");
        errors.push(FieldError::forbidden(&path, "updates to reclaimPolicy are forbidden."));
    }
    rules::immutable(
        &mut errors,
        &new["volumeBindingMode"],
        &old["volumeBindingMode"],
        &FieldPath::new("volumeBindingMode"),
    );
    errors
}

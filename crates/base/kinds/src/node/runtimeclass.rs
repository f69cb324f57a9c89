//! node.k8s.io/v1 RuntimeClass: a container runtime configuration to choose.

use std::collections::BTreeSet;

use meta::labels::validate_labels;
use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::core::{container_name, validate_resources, validate_tolerations};
use crate::json::{list, text};
use crate::kind::{Column, Kind};
use crate::rules;

pub fn kind() -> Kind {
    Kind {
        columns: vec![
            columns::name(),
            Column::new("Handler", "string", "The configuration of the runtime.", |o, _| text(o, "handler").into()),
            columns::age(),
        ]
        .into(),
        validate,
        validate_update: |new, old| {
            let mut errors = Vec::new();
            rules::immutable(&mut errors, &new["handler"], &old["handler"], &FieldPath::new("handler"));
            errors
        },
        ..Kind::cluster(V1, "RuntimeClass", "runtimeclasses")
    }
}

fn validate(class: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    rules::required_name(&mut errors, &FieldPath::new("handler"), text(class, "handler"), names::dns_label);
    let overhead = json!({"limits": class["overhead"]["podFixed"]});
    validate_resources(&mut errors, &overhead, &FieldPath::new("overhead"), container_name);
    let (scheduling, path) = (&class["scheduling"], FieldPath::new("scheduling"));
    errors.extend(validate_labels(&scheduling["nodeSelector"], &path.child("nodeSelector")));
    let path = path.child("tolerations");
    validate_tolerations(&mut errors, scheduling, &path);
    let mut seen = BTreeSet::new();
    for (i, toleration) in list(scheduling, "tolerations").iter().enumerate() {
        if !seen.insert(["key", "operator", "value", "effect"].map(|field| text(toleration, field))) {
            errors.push(FieldError::duplicate(&path.index(i), toleration.clone()));
        }
    }
    errors
}

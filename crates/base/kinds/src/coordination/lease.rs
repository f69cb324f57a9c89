//! coordination.k8s.io/v1 Lease: who holds a lock, and until when.

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::Value;

use super::V1;
use crate::json::text;
use crate::kind::{Column, Kind};
use crate::{columns, rules};

pub fn kind() -> Kind {
    Kind {
        columns: vec![
            columns::name(),
            Column::new("Holder", "string", "Who holds it.", |o, _| text(o, "spec.holderIdentity").into()),
            columns::age(),
        ]
        .into(),
        validate,
        ..Kind::namespaced(V1, "Lease", "leases")
    }
}

fn validate(lease: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&lease["spec"], FieldPath::new("spec"));
    if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
        errors.push(FieldError::invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
    }
    rules::not_negative(&mut errors, spec, &path, "leaseTransitions");
    errors
}

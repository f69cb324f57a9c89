//! admissionregistration.k8s.io/v1 MutatingAdmissionPolicy: expressions that change objects on their way in.

use serde_json::Value;

use super::V1;
use crate::columns;
use crate::json::{child, fill, list, text};
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        categories: texts(&["api-extensions"]),
        has_generation: true,
        columns: vec![
            columns::name(),
            Column::new("Mutations", "integer", "How many rules it has.", |o, _| {
                list(o, "spec.mutations").len().into()
            }),
            Column::new("ParamKind", "string", "The kind of its parameters.", |o, _| parameters(o)),
            columns::age(),
        ]
        .into(),
        default,
        validate: super::policy_rules::mutating,
        ..Kind::cluster(V1, "MutatingAdmissionPolicy", "mutatingadmissionpolicies")
    }
}

fn parameters(policy: &Value) -> Value {
    match &policy["spec"]["paramKind"] {
        Value::Null => "<unset>".into(),
        kind => format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind")).into(),
    }
}

fn default(policy: &mut Value) {
    let Some(spec) = child(policy, "spec") else { return };
    fill(spec, "failurePolicy", "Fail");
    if let Some(constraints) = child(spec, "matchConstraints") {
        super::webhook::default_match_resources(constraints);
    }
}

//! admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding: where a MutatingAdmissionPolicy applies.

use serde_json::Value;

use super::V1;
use crate::columns;
use crate::json::{child, text};
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        categories: texts(&["api-extensions"]),
        has_generation: true,
        columns: vec![
            columns::name(),
            Column::new("PolicyName", "string", "The policy it applies.", |o, _| text(o, "spec.policyName").into()),
            Column::new("ParamRef", "string", "The parameters it gives.", |o, _| super::webhook::parameter(o)),
            columns::age(),
        ]
        .into(),
        default,
        validate: super::policy_rules::bound,
        ..Kind::cluster(V1, "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
    }
}

fn default(binding: &mut Value) {
    if let Some(resources) = child(binding, "spec").and_then(|spec| child(spec, "matchResources")) {
        super::webhook::default_match_resources(resources);
    }
}

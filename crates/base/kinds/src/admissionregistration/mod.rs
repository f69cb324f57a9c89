//! The kinds of the admissionregistration.k8s.io group.

mod mutatingadmissionpolicy;
mod mutatingadmissionpolicybinding;
mod mutatingwebhookconfiguration;
mod policy_rules;
mod validatingadmissionpolicy;
mod validatingadmissionpolicybinding;
mod validatingwebhookconfiguration;
mod webhook;
mod webhook_rules;

use crate::kind::Kind;

const V1: (&str, &str) = ("admissionregistration.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![
        mutatingadmissionpolicy::kind(),
        mutatingadmissionpolicybinding::kind(),
        mutatingwebhookconfiguration::kind(),
        validatingadmissionpolicy::kind(),
        validatingadmissionpolicybinding::kind(),
        validatingwebhookconfiguration::kind(),
    ]
}

//! admissionregistration.k8s.io/v1 MutatingAdmissionPolicy: expressions that change objects on their way in.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        categories: texts(&["api-extensions"]),
        has_generation: true,
        ..Kind::cluster(V1, "MutatingAdmissionPolicy", "mutatingadmissionpolicies")
    }
}

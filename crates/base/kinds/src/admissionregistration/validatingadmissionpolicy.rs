//! admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy: expressions that accept or reject objects.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        categories: texts(&["api-extensions"]),
        has_status: true,
        has_generation: true,
        ..Kind::cluster(V1, "ValidatingAdmissionPolicy", "validatingadmissionpolicies")
    }
}

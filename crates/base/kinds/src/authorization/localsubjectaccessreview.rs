//! authorization.k8s.io/v1 LocalSubjectAccessReview: may this subject do that in this namespace.

use super::V1;
use crate::kind::{Kind, Verbs};

pub fn kind() -> Kind {
    Kind { verbs: Verbs::CreateOnly, ..Kind::namespaced(V1, "LocalSubjectAccessReview", "localsubjectaccessreviews") }
}

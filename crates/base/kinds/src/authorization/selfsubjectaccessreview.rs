//! authorization.k8s.io/v1 SelfSubjectAccessReview: may I do that.

use super::V1;
use crate::kind::{Kind, Verbs};

pub fn kind() -> Kind {
    Kind { verbs: Verbs::CreateOnly, ..Kind::cluster(V1, "SelfSubjectAccessReview", "selfsubjectaccessreviews") }
}

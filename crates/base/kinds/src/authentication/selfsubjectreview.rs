//! authentication.k8s.io/v1 SelfSubjectReview: who am I.

use super::V1;
use crate::kind::{Kind, Verbs};

pub fn kind() -> Kind {
    Kind { verbs: Verbs::CreateOnly, ..Kind::cluster(V1, "SelfSubjectReview", "selfsubjectreviews") }
}

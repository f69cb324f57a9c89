//! authorization.k8s.io/v1 SelfSubjectRulesReview: what may I do in this namespace.

use super::V1;
use crate::kind::{Kind, Verbs};

pub fn kind() -> Kind {
    Kind { verbs: Verbs::CreateOnly, ..Kind::cluster(V1, "SelfSubjectRulesReview", "selfsubjectrulesreviews") }
}

//! authorization.k8s.io/v1 SubjectAccessReview: may this subject do that.

use super::V1;
use crate::kind::{Kind, Verbs};

pub fn kind() -> Kind {
    Kind { verbs: Verbs::CreateOnly, ..Kind::cluster(V1, "SubjectAccessReview", "subjectaccessreviews") }
}

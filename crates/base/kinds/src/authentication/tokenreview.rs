//! authentication.k8s.io/v1 TokenReview: whose token is this.

use super::V1;
use crate::kind::{Kind, Verbs};

pub fn kind() -> Kind {
    Kind { verbs: Verbs::CreateOnly, ..Kind::cluster(V1, "TokenReview", "tokenreviews") }
}

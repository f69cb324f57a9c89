//! resource.k8s.io/v1 ResourceClaimTemplate: a ResourceClaim to be made per pod.

use super::V1;
use crate::columns;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind {
        columns: vec![columns::name(), columns::age()].into(),
        ..Kind::namespaced(V1, "ResourceClaimTemplate", "resourceclaimtemplates")
    }
}

//! resource.k8s.io/v1 ResourceClaimTemplate: a ResourceClaim to be made per pod.

use super::V1;
use super::resourceclaim::default_spec;
use crate::columns;
use crate::json::child;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind {
        columns: vec![columns::name(), columns::age()].into(),
        default: |o| child(o, "spec").and_then(|spec| child(spec, "spec")).into_iter().for_each(default_spec),
        ..Kind::namespaced(V1, "ResourceClaimTemplate", "resourceclaimtemplates")
    }
}

//! flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration: how many requests of a level run and wait.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind {
        has_status: true,
        has_generation: true,
        ..Kind::cluster(V1, "PriorityLevelConfiguration", "prioritylevelconfigurations")
    }
}

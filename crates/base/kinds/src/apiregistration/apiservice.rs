//! apiregistration.k8s.io/v1 APIService: who serves a group and version.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind { categories: texts(&["api-extensions"]), has_status: true, ..Kind::cluster(V1, "APIService", "apiservices") }
}

//! apps/v1 ControllerRevision: a numbered snapshot of a controller template.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind::namespaced(V1, "ControllerRevision", "controllerrevisions")
}

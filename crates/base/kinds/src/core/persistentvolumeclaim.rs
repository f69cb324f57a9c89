//! v1 PersistentVolumeClaim: a request for storage.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["pvc"]),
        has_status: true,
        ..Kind::namespaced(V1, "PersistentVolumeClaim", "persistentvolumeclaims")
    }
}

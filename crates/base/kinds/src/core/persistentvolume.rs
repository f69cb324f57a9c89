//! v1 PersistentVolume: a piece of storage.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind { short_names: texts(&["pv"]), has_status: true, ..Kind::cluster(V1, "PersistentVolume", "persistentvolumes") }
}

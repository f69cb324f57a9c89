//! storage.k8s.io/v1 StorageClass: a way to provision storage.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind { short_names: texts(&["sc"]), ..Kind::cluster(V1, "StorageClass", "storageclasses") }
}

//! storage.k8s.io/v1 VolumeAttributesClass: changeable parameters of volumes.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind { short_names: texts(&["vac"]), ..Kind::cluster(V1, "VolumeAttributesClass", "volumeattributesclasses") }
}

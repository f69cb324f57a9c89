//! storage.k8s.io/v1 VolumeAttachment: a volume that is to be attached to a node.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind { has_status: true, ..Kind::cluster(V1, "VolumeAttachment", "volumeattachments") }
}

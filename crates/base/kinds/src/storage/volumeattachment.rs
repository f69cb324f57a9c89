//! storage.k8s.io/v1 VolumeAttachment: a volume that is to be attached to a node.

use serde_json::json;

use super::V1;
use crate::columns;
use crate::json::{flag, set, text};
use crate::kind::{Column, Kind};

pub fn kind() -> Kind {
    Kind {
        has_status: true,
        columns: vec![
            columns::name(),
            Column::new("Attacher", "string", "Who attaches it.", |o, _| text(o, "spec.attacher").into())
                .format("name"),
            Column::new("PV", "string", "The volume.", |o, _| text(o, "spec.source.persistentVolumeName").into()),
            Column::new("Node", "string", "Where it goes.", |o, _| text(o, "spec.nodeName").into()),
            Column::new("Attached", "boolean", "Whether it is there.", |o, _| flag(o, "status.attached").into()),
            columns::age(),
        ]
        .into(),
        prepare_create: |o| set(o, "status", json!({"attached": false})),
        ..Kind::cluster(V1, "VolumeAttachment", "volumeattachments")
    }
}

//! storage.k8s.io/v1 StorageClass: a way to provision storage.

use serde_json::Value;

use super::V1;
use crate::columns;
use crate::json::{fill, flag, text};
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["sc"]),
        columns: vec![
            columns::default_marked_name(),
            Column::new("Provisioner", "string", "Who makes its volumes.", |o, _| text(o, "provisioner").into()),
            Column::new("ReclaimPolicy", "string", "What happens when a claim goes.", |o, _| {
                text(o, "reclaimPolicy").into()
            }),
            Column::new("VolumeBindingMode", "string", "When a volume is chosen.", |o, _| {
                text(o, "volumeBindingMode").into()
            }),
            Column::new("AllowVolumeExpansion", "string", "Whether volumes can grow.", |o, _| {
                flag(o, "allowVolumeExpansion").into()
            }),
            columns::age(),
        ]
        .into(),
        default,
        ..Kind::cluster(V1, "StorageClass", "storageclasses")
    }
}

fn default(class: &mut Value) {
    fill(class, "reclaimPolicy", "Delete");
    fill(class, "volumeBindingMode", "Immediate");
}

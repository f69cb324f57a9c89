//! v1 PersistentVolume: a piece of storage.

use serde_json::{Value, json};

use super::V1;
use super::pod_defaults::{default_network_volume, default_resource_list};
use crate::columns;
use crate::json::{child, ensure, fill, fill_empty, list, set, text};
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["pv"]),
        has_status: true,
        columns: vec![
            columns::name(),
            Column::new("Capacity", "string", "Its size.", |o, _| text(o, "spec.capacity.storage").into()),
            Column::new("Access Modes", "string", "How it may be mounted.", |o, _| {
                columns::access_modes(list(o, "spec.accessModes")).into()
            }),
            Column::new("Reclaim Policy", "string", "What happens when its claim goes.", |o, _| {
                text(o, "spec.persistentVolumeReclaimPolicy").into()
            }),
            Column::new("Status", "string", "Whether it is bound.", |o, _| columns::phase(o)),
            Column::new("Claim", "string", "The claim that has it.", |o, _| claim(o)),
            Column::new("StorageClass", "string", "The class that made it.", |o, _| columns::storage_class(o).into()),
            Column::new("VolumeAttributesClass", "string", "Its changeable parameters.", |o, _| {
                columns::or_unset(&o["spec"]["volumeAttributesClassName"])
            }),
            Column::new("Reason", "string", "Why it is in this state.", |o, _| text(o, "status.reason").into()),
            columns::age(),
            Column::new("VolumeMode", "string", "Block or file system.", |o, _| {
                columns::or_unset(&o["spec"]["volumeMode"])
            })
            .wide(),
        ]
        .into(),
        default,
        prepare_create: |volume| set(volume, "status", json!({"phase": "Pending"})),
        validate: super::storage_rules::validate_volume,
        validate_update: super::storage_rules::validate_volume_update,
        ..Kind::cluster(V1, "PersistentVolume", "persistentvolumes")
    }
}

fn claim(volume: &Value) -> Value {
    match &volume["spec"]["claimRef"] {
        Value::Null => "".into(),
        claim => format!("{}/{}", text(claim, "namespace"), text(claim, "name")).into(),
    }
}

fn default(volume: &mut Value) {
    if let Some(status) = ensure(volume, "status") {
        fill_empty(status, "phase", "Pending");
    }
    let Some(spec) = child(volume, "spec") else { return };
    fill_empty(spec, "persistentVolumeReclaimPolicy", "Retain");
    fill(spec, "volumeMode", "Filesystem");
    default_resource_list(spec, "capacity");
    if let Some(source) = child(spec, "hostPath") {
        fill(source, "type", "");
    }
    default_network_volume(spec);
}

//! storage.k8s.io/v1 VolumeAttributesClass: changeable parameters of volumes.

use super::V1;
use crate::columns;
use crate::json::text;
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["vac"]),
        columns: vec![
            columns::name(),
            Column::new("DriverName", "string", "Who understands the parameters.", |o, _| text(o, "driverName").into()),
            columns::age(),
        ]
        .into(),
        ..Kind::cluster(V1, "VolumeAttributesClass", "volumeattributesclasses")
    }
}

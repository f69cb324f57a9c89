//! networking.k8s.io/v1 ServiceCIDR: a range that service addresses come from.

use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{list, set};
use crate::kind::{Column, Kind};

pub fn kind() -> Kind {
    Kind {
        has_status: true,
        columns: vec![columns::name(), Column::new("CIDRs", "string", "The ranges.", |o, _| ranges(o)), columns::age()]
            .into(),
        prepare_create: |o| set(o, "status", json!({})),
        ..Kind::cluster(V1, "ServiceCIDR", "servicecidrs")
    }
}

fn ranges(object: &Value) -> Value {
    list(object, "spec.cidrs").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",").into()
}

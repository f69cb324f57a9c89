//! discovery.k8s.io/v1 EndpointSlice: a slice of the addresses behind a Service.

use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{fill, items, list, text};
use crate::kind::{Column, Kind};

pub fn kind() -> Kind {
    Kind {
        has_generation: true,
        columns: vec![
            columns::name(),
            Column::new("AddressType", "string", "What its addresses are.", |o, _| text(o, "addressType").into()),
            Column::new("Ports", "string", "Ports of all its endpoints.", |o, _| ports(o)),
            Column::new("Endpoints", "string", "Addresses.", |o, _| endpoints(o)),
            columns::age(),
        ]
        .into(),
        default,
        ..Kind::namespaced(V1, "EndpointSlice", "endpointslices")
    }
}

const SHOWN_MAX: usize = 3;

fn ports(slice: &Value) -> Value {
    let port = |port: &Value| match (&port["port"], text(port, "name")) {
        (Value::Number(number), _) => number.to_string(),
        (_, "") => "*".to_owned(),
        (_, name) => name.to_owned(),
    };
    columns::with_more(&list(slice, "ports").iter().map(port).collect::<Vec<_>>(), SHOWN_MAX).into()
}

fn endpoints(slice: &Value) -> Value {
    let addresses = list(slice, "endpoints").iter().flat_map(|endpoint| list(endpoint, "addresses"));
    let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
    columns::with_more(&addresses, SHOWN_MAX).into()
}

fn default(slice: &mut Value) {
    for port in items(slice, "ports") {
        fill(port, "name", "");
        fill(port, "protocol", "TCP");
    }
    items(slice, "endpoints").for_each(|endpoint| fill(endpoint, "conditions", json!({})));
}

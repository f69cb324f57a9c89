//! v1 Endpoints: the addresses behind a Service, all in one object.

use serde_json::Value;

use super::V1;
use crate::columns;
use crate::json::{fill_empty, int, items, list, text};
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["ep"]),
        columns: vec![
            columns::name(),
            Column::new("Endpoints", "string", "Addresses and ports.", |o, _| endpoints(o)),
            columns::age(),
        ]
        .into(),
        default,
        ..Kind::namespaced(V1, "Endpoints", "endpoints")
    }
}

const SHOWN_MAX: usize = 3;

fn join(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn endpoints(object: &Value) -> Value {
    if list(object, "subsets").is_empty() {
        return "<none>".into();
    }
    let mut texts = Vec::new();
    for subset in list(object, "subsets") {
        let ips = list(subset, "addresses").iter().map(|address| text(address, "ip"));
        match list(subset, "ports") {
            [] => texts.extend(ips.map(str::to_owned)),
            ports => {
                for port in ports {
                    texts.extend(ips.clone().map(|ip| join(ip, int(port, "port"))));
                }
            }
        }
    }
    if texts.is_empty() { "".into() } else { columns::with_more(&texts, SHOWN_MAX).into() }
}

fn default(object: &mut Value) {
    for subset in items(object, "subsets") {
        items(subset, "ports").for_each(|port| fill_empty(port, "protocol", "TCP"));
    }
}

//! v1 Endpoints: the addresses behind a Service, all in one object.

use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use super::V1;
use crate::json::{fill_empty, int, items, list, text};
use crate::kind::{Column, Kind, texts};
use crate::{columns, rules};

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
        validate,
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

fn validate(endpoints: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    for (i, subset) in list(endpoints, "subsets").iter().enumerate() {
        let path = FieldPath::new("subsets").index(i);
        if list(subset, "addresses").is_empty() && list(subset, "notReadyAddresses").is_empty() {
            errors.push(FieldError::required(&path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for field in ["addresses", "notReadyAddresses"] {
            for (j, address) in list(subset, field).iter().enumerate() {
                let (path, ip) = (path.child(field).index(j).child("ip"), text(address, "ip"));
                rules::endpoint_ip(&mut errors, &path, ip);
                if ip.parse::<std::net::IpAddr>().is_err() {
                    errors.push(FieldError::invalid(&path, ip, "must be a valid IP address"));
                }
            }
        }
        let ports = list(subset, "ports");
        for (j, port) in ports.iter().enumerate() {
            let path = path.child("ports").index(j);
            match text(port, "name") {
                "" if ports.len() > 1 => errors.push(FieldError::required(&path.child("name"), "")),
                "" => {}
                name => rules::name(&mut errors, &path.child("name"), name, names::dns_label),
            }
            rules::number_port(&mut errors, &path.child("port"), int(port, "port"));
            rules::one_of(&mut errors, port, &path, "protocol", &["SCTP", "TCP", "UDP"]);
        }
    }
    errors
}

//! networking.k8s.io/v1 IPAddress: an address taken from a service range.

use serde_json::Value;

use super::V1;
use crate::columns;
use crate::json::text;
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["ip"]),
        columns: vec![
            columns::name(),
            Column::new("ParentRef", "string", "Who uses the address.", |o, _| parent(o)),
            columns::age(),
        ]
        .into(),
        ..Kind::cluster(V1, "IPAddress", "ipaddresses")
    }
}

fn parent(address: &Value) -> Value {
    let parent = &address["spec"]["parentRef"];
    if parent.is_null() {
        return "<none>".into();
    }
    let (group, resource) = (text(parent, "group"), text(parent, "resource"));
    let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let parts = [resource.to_lowercase(), text(parent, "namespace").to_owned(), text(parent, "name").to_owned()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/").into()
}

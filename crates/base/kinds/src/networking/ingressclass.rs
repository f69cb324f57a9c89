//! networking.k8s.io/v1 IngressClass: which controller serves an Ingress.

use serde_json::Value;

use super::V1;
use crate::columns;
use crate::json::{child, fill, text};
use crate::kind::{Column, Kind};

pub fn kind() -> Kind {
    Kind {
        has_generation: true,
        columns: vec![
            columns::default_marked_name(),
            Column::new("Controller", "string", "Who serves it.", |o, _| text(o, "spec.controller").into()),
            Column::new("Parameters", "string", "More settings of the controller.", |o, _| parameters(o)),
            columns::age(),
        ]
        .into(),
        default,
        ..Kind::cluster(V1, "IngressClass", "ingressclasses")
    }
}

fn parameters(class: &Value) -> Value {
    match &class["spec"]["parameters"] {
        Value::Null => "<none>".into(),
        parameters => {
            let group = parameters["apiGroup"].as_str().map_or(String::new(), |group| format!(".{group}"));
            format!("{}{group}/{}", text(parameters, "kind"), text(parameters, "name")).into()
        }
    }
}

fn default(class: &mut Value) {
    if let Some(parameters) = child(class, "spec").and_then(|spec| child(spec, "parameters")) {
        fill(parameters, "scope", "Cluster");
    }
}

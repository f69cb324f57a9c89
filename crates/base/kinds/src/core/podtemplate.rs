//! v1 PodTemplate: a pod description kept for others to use.

use serde_json::Value;

use super::V1;
use super::pod_defaults::default_template;
use crate::columns;
use crate::json::child;
use crate::kind::{Column, Kind};

pub fn kind() -> Kind {
    Kind {
        has_generation: true,
        columns: vec![
            columns::name(),
            Column::new("Containers", "string", "Names of the containers.", |o, _| {
                columns::containers(&o["template"]["spec"], "name")
            }),
            Column::new("Images", "string", "Images of the containers.", |o, _| {
                columns::containers(&o["template"]["spec"], "image")
            }),
            Column::new("Pod Labels", "string", "Labels of the pods.", |o, _| {
                columns::labels(&o["template"]["metadata"]["labels"])
            }),
        ]
        .into(),
        default,
        ..Kind::namespaced(V1, "PodTemplate", "podtemplates")
    }
}

fn default(object: &mut Value) {
    if let Some(template) = child(object, "template") {
        default_template(template);
    }
}

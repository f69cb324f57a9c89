//! v1 Namespace: the space that names live in.

use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{child, ensure, list, set, text};
use crate::kind::{Column, Kind, SelectableField, Subresource, Verbs, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["ns"]),
        verbs: Verbs::AllButDeleteCollection,
        has_status: true,
        subresources: vec![Subresource::new("finalize", &["update"])].into(),
        columns: vec![
            columns::name(),
            Column::new("Status", "string", "Whether it is in use or going.", |o, _| text(o, "status.phase").into()),
            columns::age(),
        ]
        .into(),
        default,
        prepare_create,
        prepare_update,
        validate_name: meta::names::dns_label,
        selectable_fields: vec![SelectableField {
            path: "status.phase".into(),
            read: |o| text(o, "status.phase").to_owned(),
        }]
        .into(),
        ..Kind::cluster(V1, "Namespace", "namespaces")
    }
}

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

/// Every namespace is labelled with its name.
fn default(namespace: &mut Value) {
    let name = text(namespace, "metadata.name").to_owned();
    if name.is_empty() {
        return;
    }
    if let Some(labels) = child(namespace, "metadata").and_then(|metadata| ensure(metadata, "labels")) {
        set(labels, NAME_LABEL, name);
    }
}

fn prepare_create(namespace: &mut Value) {
    if let Some(spec) = ensure(namespace, "spec")
        && !list(spec, "finalizers").iter().any(|finalizer| finalizer == FINALIZER)
    {
        let mut finalizers = list(spec, "finalizers").to_vec();
        finalizers.push(FINALIZER.into());
        set(spec, "finalizers", finalizers);
    }
    set(namespace, "status", json!({"phase": "Active"}));
}

/// Only `/finalize` changes the finalizers of the spec.
fn prepare_update(namespace: &mut Value, old: &Value) {
    if let Some(spec) = ensure(namespace, "spec") {
        set(spec, "finalizers", old["spec"]["finalizers"].clone());
    }
}

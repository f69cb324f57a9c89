//! certificates.k8s.io/v1 CertificateSigningRequest: a request for a certificate and its answer.

use meta::time;
use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{list, set, text};
use crate::kind::{Column, Kind, SelectableField, Subresource, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["csr"]),
        has_status: true,
        subresources: vec![Subresource::new("approval", &["get", "patch", "update"])].into(),
        columns: vec![
            columns::name(),
            columns::age(),
            Column::new("SignerName", "string", "Who is asked to sign.", |o, _| {
                columns::or_none(text(o, "spec.signerName"))
            }),
            Column::new("Requestor", "string", "Who asks.", |o, _| text(o, "spec.username").into()),
            Column::new("RequestedDuration", "string", "How long it should last.", |o, _| duration(o)),
            Column::new("Condition", "string", "How it was answered.", |o, _| condition(o).into()),
        ]
        .into(),
        prepare_create: |o| set(o, "status", json!({})),
        selectable_fields: vec![SelectableField {
            path: "spec.signerName".into(),
            read: |o| text(o, "spec.signerName").to_owned(),
        }]
        .into(),
        ..Kind::cluster(V1, "CertificateSigningRequest", "certificatesigningrequests")
    }
}

fn duration(request: &Value) -> Value {
    match request["spec"]["expirationSeconds"].as_i64() {
        Some(seconds) => time::human_duration(seconds).into(),
        None => "<none>".into(),
    }
}

fn condition(request: &Value) -> String {
    let has = |kind: &str| list(request, "status.conditions").iter().any(|condition| condition["type"] == kind);
    let mut text = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if request["status"]["certificate"].as_str().is_some_and(|certificate| !certificate.is_empty()) {
        text.push_str(",Issued");
    }
    text
}

//! Certificate requests: they carry who asked, and only who may decides about them.

use std::sync::Arc;

use access::Attributes;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meta::{ApiResult, FieldError, FieldPath, Status};
use pki::CsrView;
use serde_json::{Value, json};

use super::Security;
use super::admission::forbidden;
use crate::admission::{Admission, AdmissionRequest, Operation};

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub struct CertificateAdmission(pub Arc<Security>);

#[async_trait]
impl Admission for CertificateAdmission {
    fn name(&self) -> &'static str {
        "Certificates"
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> ApiResult<()> {
        if is_request(request) && request.operation == Operation::Create && request.subresource.is_empty() {
            let spec = &mut object["spec"];
            spec["username"] = json!(request.user.name);
            let given = [
                ("uid", (!request.user.uid.is_empty()).then(|| json!(request.user.uid))),
                ("groups", (!request.user.groups.is_empty()).then(|| json!(request.user.groups))),
                ("extra", (!request.user.extra.is_empty()).then(|| json!(request.user.extra))),
            ];
            for (field, value) in given {
                match (value, spec.as_object_mut()) {
                    (Some(value), Some(spec)) => drop(spec.insert(field.to_owned(), value)),
                    (None, Some(spec)) => drop(spec.remove(field)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, object: &Value) -> ApiResult<()> {
        if !is_request(request) {
            return Ok(());
        }
        let signer = object["spec"]["signerName"].as_str().unwrap_or_default();
        match (request.operation, request.subresource) {
            (Operation::Create, "") => check_request(request, signer, object),
            (Operation::Update, "approval") => {
                self.permit(request, "approve", signer, "user not permitted to approve requests with signerName")
            }
            (Operation::Update, "status") => {
                let old = request.old.unwrap_or(&Value::Null);
                // A failure is a decision as a certificate is.
                let same = old["status"]["certificate"] == object["status"]["certificate"]
                    && old["status"]["conditions"] == object["status"]["conditions"];
                if same {
                    return Ok(());
                }
                self.permit(request, "sign", signer, "user not permitted to sign requests with signerName")
            }
            _ => Ok(()),
        }
    }
}

impl CertificateAdmission {
    /// The signer itself or all of its domain (`DOMAIN/*`) must be permitted.
    fn permit(&self, request: &AdmissionRequest<'_>, verb: &str, signer: &str, why: &str) -> ApiResult<()> {
        let wildcard = signer.split_once('/').map(|(domain, _)| format!("{domain}/*")).unwrap_or_default();
        let permitted = [signer, &wildcard].into_iter().any(|name| {
            self.0.allows(&Attributes {
                user: request.user.clone(),
                verb: verb.to_owned(),
                group: GROUP.to_owned(),
                version: "*".to_owned(),
                resource: "signers".to_owned(),
                name: name.to_owned(),
                ..Attributes::default()
            })
        });
        if permitted { Ok(()) } else { Err(forbidden(request, &format!("{why} {signer:?}"))) }
    }
}

fn is_request(request: &AdmissionRequest<'_>) -> bool {
    request.served.kind.group == GROUP && request.served.kind.plural == "certificatesigningrequests"
}

/// The request must be readable and signed by its own key, and makes nobody a master of the cluster by way of the API.
fn check_request(request: &AdmissionRequest<'_>, signer: &str, object: &Value) -> ApiResult<()> {
    let encoded = object["spec"]["request"].as_str().unwrap_or_default();
    let text = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let csr = CsrView::from_pem(&text).map_err(|error| {
        let path = FieldPath::new("spec").child("request");
        let error = FieldError::invalid(&path, encoded, error.to_string());
        Status::invalid(GROUP, "CertificateSigningRequest", request.name, &[error])
    })?;
    if signer == CLIENT_SIGNER && csr.organizations.iter().any(|group| group == access::attributes::SYSTEM_MASTERS) {
        let why = format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed");
        return Err(forbidden(request, &why));
    }
    Ok(())
}

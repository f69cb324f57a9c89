//! certificates.k8s.io/v1 CertificateSigningRequest: a request for a certificate and its answer.

use super::V1;
use crate::kind::{Kind, Subresource, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["csr"]),
        has_status: true,
        subresources: vec![Subresource::new("approval", &["get", "patch", "update"])].into(),
        ..Kind::cluster(V1, "CertificateSigningRequest", "certificatesigningrequests")
    }
}

//! What a certificate says: names, validity, key hash, and whether it should be renewed.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use x509_parser::prelude::*;

use crate::{PkiError, PkiResult};

/// The facts of one certificate that Kubernetes looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateView {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub ips: Vec<IpAddr>,
    /// Seconds since the epoch.
    pub not_before: i64,
    /// Seconds since the epoch; the certificate is good up to and including this second.
    pub not_after: i64,
    pub is_ca: bool,
    pub client_auth: bool,
    pub server_auth: bool,
    /// `sha256:` and the hexadecimal hash of the SubjectPublicKeyInfo, as kubeadm prints it.
    pub spki_hash: String,
    /// Hexadecimal SHA-256 of the whole certificate: upstream's credential id.
    pub fingerprint: String,
}

impl CertificateView {
    pub fn from_der(der: &[u8]) -> PkiResult<Self> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|e| PkiError::crypto("read the certificate", e))?;
        let usages = certificate.extended_key_usage().ok().flatten().map(|e| e.value);
        let (dns_names, ips) = subject_alternative_names(certificate.extensions());
        let name = certificate.subject();
        Ok(Self {
            common_name: attribute(name, &oid_registry::OID_X509_COMMON_NAME).pop().unwrap_or_default(),
            organizations: attribute(name, &oid_registry::OID_X509_ORGANIZATION_NAME),
            dns_names,
            ips,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            is_ca: certificate.is_ca(),
            client_auth: usages.is_some_and(|u| u.any || u.client_auth),
            server_auth: usages.is_some_and(|u| u.any || u.server_auth),
            spki_hash: hash_of(certificate.public_key().raw),
            fingerprint: hex(&Sha256::digest(der)),
        })
    }

    /// Reads the first certificate of a PEM text.
    pub fn from_pem(text: &str) -> PkiResult<Self> {
        Self::from_der(&first_der(text)?)
    }
}

/// The DER bytes of the first certificate of a PEM text.
pub fn first_der(text: &str) -> PkiResult<Vec<u8>> {
    let blocks = ::pem::parse_many(text).map_err(|e| PkiError::crypto("read the PEM text", e))?;
    let block = blocks.into_iter().find(|b| b.tag() == "CERTIFICATE");
    block
        .map(::pem::Pem::into_contents)
        .ok_or_else(|| PkiError::Rejected("the PEM text holds no certificate".to_owned()))
}

/// `sha256:HEX` of the SubjectPublicKeyInfo of a certificate: what joining nodes pin the cluster's CA by.
pub fn spki_hash(certificate_der: &[u8]) -> PkiResult<String> {
    let (_, certificate) =
        X509Certificate::from_der(certificate_der).map_err(|e| PkiError::crypto("read the certificate", e))?;
    Ok(hash_of(certificate.public_key().raw))
}

fn hash_of(spki: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(spki)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn attribute(name: &X509Name<'_>, oid: &x509_parser::oid_registry::Oid<'_>) -> Vec<String> {
    name.iter_attributes().filter(|a| a.attr_type() == oid).filter_map(|a| a.as_str().ok()).map(str::to_owned).collect()
}

fn subject_alternative_names(extensions: &[X509Extension<'_>]) -> (Vec<String>, Vec<IpAddr>) {
    let (mut dns, mut ips) = (Vec::new(), Vec::new());
    for extension in extensions {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(text) => dns.push((*text).to_owned()),
                GeneralName::IPAddress(bytes) => ips.extend(ip_from_bytes(bytes)),
                _ => {}
            }
        }
    }
    (dns, ips)
}

pub(crate) fn ip_from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok().or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}

/// Whether four fifths of a certificate's life are over (or it is not readable, or not yet valid): kubelets renew
/// between 70% and 90% for the same reason, so that a failing renewal has time to be repaired.
pub fn needs_renewal(certificate: &CertificateView, now: i64) -> bool {
    let life = certificate.not_after.saturating_sub(certificate.not_before).max(0);
    now < certificate.not_before || now >= certificate.not_before + life / 5 * 4
}

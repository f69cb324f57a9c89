//! Certificate signing requests: making them, and reading what they ask for.

use std::net::IpAddr;

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
use x509_parser::oid_registry;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509CertificationRequest};

use crate::inspect::{attribute, ip_from_bytes};
use crate::issue::{self, Credential};
use crate::{PkiError, PkiResult};

/// What a request asks for; its signature (proof that the asker holds the key) was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsrView {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub ips: Vec<IpAddr>,
    pub email_addresses: Vec<String>,
    pub uris: Vec<String>,
    der: Vec<u8>,
}

impl CsrView {
    /// Reads the one `CERTIFICATE REQUEST` block of a PEM text, as the API demands it in `spec.request`.
    pub fn from_pem(text: &str) -> PkiResult<Self> {
        let rejected = |why: &str| PkiError::Rejected(why.to_owned());
        let block = pem::parse(text).map_err(|_| rejected("PEM block type must be CERTIFICATE REQUEST"))?;
        if block.tag() != "CERTIFICATE REQUEST" {
            return Err(rejected("PEM block type must be CERTIFICATE REQUEST"));
        }
        let der = block.into_contents();
        let (rest, request) = X509CertificationRequest::from_der(&der)
            .map_err(|e| PkiError::Rejected(format!("malformed certificate request: {e}")))?;
        if !rest.is_empty() {
            return Err(rejected("trailing data after the certificate request"));
        }
        request.verify_signature().map_err(|_| rejected("the signature of the certificate request does not verify"))?;
        let subject = &request.certification_request_info.subject;
        let mut view = Self {
            common_name: attribute(subject, &oid_registry::OID_X509_COMMON_NAME).pop().unwrap_or_default(),
            organizations: attribute(subject, &oid_registry::OID_X509_ORGANIZATION_NAME),
            dns_names: Vec::new(),
            ips: Vec::new(),
            email_addresses: Vec::new(),
            uris: Vec::new(),
            der: Vec::new(),
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| view.add_name(name));
            }
        }
        view.der = der;
        Ok(view)
    }

    fn add_name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(text) => self.dns_names.push((*text).to_owned()),
            GeneralName::IPAddress(bytes) => self.ips.extend(ip_from_bytes(bytes)),
            GeneralName::RFC822Name(text) => self.email_addresses.push((*text).to_owned()),
            GeneralName::URI(text) => self.uris.push((*text).to_owned()),
            _ => {}
        }
    }

    /// The encoder's parameters with the usages that the API object asks for instead of the request's own.
    pub(crate) fn parsed(&self, usages: &[String]) -> PkiResult<CertificateSigningRequestParams> {
        if self.organizations.len() > 1 {
            let why = "certificate requests with more than one organization cannot be signed: ask for one group";
            return Err(PkiError::Rejected(why.to_owned()));
        }
        let mut parsed = CertificateSigningRequestParams::from_der(&self.der.as_slice().into())
            .map_err(|e| PkiError::Rejected(format!("unsupported certificate request: {e}")))?;
        parsed.params.is_ca = IsCa::ExplicitNoCa;
        parsed.params.key_usages.clear();
        parsed.params.extended_key_usages.clear();
        for usage in usages {
            apply_usage(&mut parsed.params, usage)?;
        }
        Ok(parsed)
    }
}

/// `spec.usages` of a CertificateSigningRequest in X.509 terms.
fn apply_usage(params: &mut CertificateParams, usage: &str) -> PkiResult<()> {
    use ExtendedKeyUsagePurpose as Extended;
    use KeyUsagePurpose as Key;
    let mut key = |usage: Key| params.key_usages.push(usage);
    match usage {
        "signing" | "digital signature" => key(Key::DigitalSignature),
        "content commitment" => key(Key::ContentCommitment),
        "key encipherment" => key(Key::KeyEncipherment),
        "key agreement" => key(Key::KeyAgreement),
        "data encipherment" => key(Key::DataEncipherment),
        "cert sign" => key(Key::KeyCertSign),
        "crl sign" => key(Key::CrlSign),
        "encipher only" => key(Key::EncipherOnly),
        "decipher only" => key(Key::DecipherOnly),
        "any" => params.extended_key_usages.push(Extended::Any),
        "server auth" => params.extended_key_usages.push(Extended::ServerAuth),
        "client auth" => params.extended_key_usages.push(Extended::ClientAuth),
        "code signing" => params.extended_key_usages.push(Extended::CodeSigning),
        "email protection" | "s/mime" => params.extended_key_usages.push(Extended::EmailProtection),
        "timestamping" => params.extended_key_usages.push(Extended::TimeStamping),
        "ocsp signing" => params.extended_key_usages.push(Extended::OcspSigning),
        other => return Err(PkiError::Rejected(format!("unrecognized usage: {other:?}"))),
    }
    Ok(())
}

/// A fresh key and a request for it, both PEM (`certificate_pem` holds the request).
pub fn new_csr(
    common_name: &str,
    organization: Option<&str>,
    dns_names: &[String],
    ips: &[IpAddr],
) -> PkiResult<Credential> {
    let key = issue::new_key()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = issue::distinguished_name(common_name, organization);
    for name in dns_names {
        let name = name.as_str().try_into().map_err(|e| PkiError::crypto(&format!("use the name {name:?}"), e))?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params.subject_alt_names.extend(ips.iter().copied().map(SanType::IpAddress));
    let request = params.serialize_request(&key).map_err(|e| PkiError::crypto("make a certificate request", e))?;
    let certificate_pem = request.pem().map_err(|e| PkiError::crypto("encode a certificate request", e))?;
    Ok(Credential { certificate_pem, key_pem: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, CertificateView};
    use std::time::Duration;

    #[test]
    fn a_request_is_read_and_signed() {
        let ip = IpAddr::from([10, 0, 0, 7]);
        let csr = new_csr("system:node:a", Some("system:nodes"), &["a".to_owned()], &[ip]).unwrap();
        let view = CsrView::from_pem(&csr.certificate_pem).unwrap();
        assert_eq!(view.common_name, "system:node:a");
        assert_eq!(view.organizations, ["system:nodes"]);
        assert_eq!((view.dns_names.as_slice(), view.ips.as_slice()), (&["a".to_owned()][..], &[ip][..]));
        let authority = Authority::generate("kubernetes", 1_800_000_000).unwrap();
        let usages = ["digital signature", "server auth"].map(str::to_owned);
        let pem = authority.sign(&view, &usages, Duration::from_secs(600), 1_800_000_000).unwrap();
        let signed = CertificateView::from_pem(&pem).unwrap();
        assert!(signed.server_auth && !signed.client_auth && !signed.is_ca);
        assert_eq!(signed.not_after, 1_800_000_600);
        assert!(authority.signed(&crate::inspect::first_der(&pem).unwrap()));
    }

    #[test]
    fn bad_requests_are_refused() {
        for text in ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(CsrView::from_pem(text).is_err());
        }
        let mut csr = new_csr("a", None, &[], &[]).unwrap().certificate_pem;
        let block = pem::parse(&csr).unwrap();
        let mut der = block.into_contents();
        let last = der.len() - 1;
        der[last] ^= 1;
        csr = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der));
        assert!(CsrView::from_pem(&csr).is_err(), "a broken signature");
    }
}

//! A certificate authority: made once, kept in two files, signs certificates and certificate requests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::csr::CsrView;
use crate::files::{self, PUBLIC_MODE, SECRET_MODE};
use crate::inspect::{CertificateView, first_der};
use crate::issue::{self, CertificateRequest, Credential, Usage};
use crate::{PkiError, PkiResult};

/// An authority outlives every certificate it signs: ten years.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A CA certificate with its key. ECDSA P-256.
pub struct Authority {
    certificate_pem: String,
    certificate_der: Vec<u8>,
    key_pem: String,
    view: CertificateView,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("view", &self.view).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new self-signed authority in memory.
    pub fn generate(common_name: &str, now: i64) -> PkiResult<Self> {
        let key = issue::new_key()?;
        let key_pem = key.serialize_pem();
        let mut params = CertificateParams::default();
        params.distinguished_name = issue::distinguished_name(common_name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        issue::set_validity(&mut params, now, AUTHORITY_LIFE);
        let certificate = params.self_signed(&key).map_err(|e| PkiError::crypto("sign the CA certificate", e))?;
        Self::from_pem(certificate.pem(), key_pem)
    }

    /// Reads an authority from PEM texts; fails where the key is not the certificate's or it is no CA.
    pub fn from_pem(certificate_pem: String, key_pem: String) -> PkiResult<Self> {
        let certificate_der = first_der(&certificate_pem)?;
        let view = CertificateView::from_der(&certificate_der)?;
        if !view.is_ca {
            return Err(PkiError::Rejected("the certificate is not a certificate authority".to_owned()));
        }
        let key = KeyPair::from_pem(&key_pem).map_err(|e| PkiError::crypto("read the private key", e))?;
        if !key_matches(&certificate_der, &key)? {
            return Err(PkiError::Rejected("the private key does not belong to the certificate".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate_der.as_slice().into(), key)
            .map_err(|e| PkiError::crypto("read the CA certificate", e))?;
        Ok(Self { certificate_pem, certificate_der, key_pem, view, issuer })
    }

    /// Loads `NAME.crt` and `NAME.key` of a directory, or makes them. Safe to kill at any instant: the key is written
    /// first and the certificate last, and a key without a certificate counts as never made.
    pub fn load_or_create(folder: &Path, name: &str, common_name: &str, now: i64) -> PkiResult<Self> {
        files::make_private_dir(folder)?;
        let (certificate_path, key_path) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        if let Some(certificate_pem) = files::read_optional(&certificate_path)? {
            return Self::load(certificate_pem, &certificate_path, &key_path, now);
        }
        let authority = Self::generate(common_name, now)?;
        files::write_atomic(&key_path, authority.key_pem.as_bytes(), SECRET_MODE)?;
        files::write_atomic(&certificate_path, authority.certificate_pem.as_bytes(), PUBLIC_MODE)?;
        Ok(authority)
    }

    fn load(certificate_pem: String, certificate_path: &Path, key_path: &Path, now: i64) -> PkiResult<Self> {
        let bad = |path: &Path, problem: String| PkiError::BadFile {
            path: PathBuf::from(path),
            problem,
            next_step: format!(
                "restore {} and {} together from a backup, or delete both to make a new authority \
                 (every certificate signed by the old one stops working)",
                certificate_path.display(),
                key_path.display()
            ),
        };
        let view = CertificateView::from_pem(&certificate_pem)
            .map_err(|e| bad(certificate_path, format!("holds no readable certificate ({e})")))?;
        if view.not_after < now {
            return Err(bad(certificate_path, "has expired".to_owned()));
        }
        let key_pem = files::read_optional(key_path)?.ok_or_else(|| bad(key_path, "is missing".to_owned()))?;
        KeyPair::from_pem(&key_pem).map_err(|e| bad(key_path, format!("holds no readable private key ({e})")))?;
        Self::from_pem(certificate_pem, key_pem).map_err(|e| bad(key_path, format!("does not fit: {e}")))
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    pub fn view(&self) -> &CertificateView {
        &self.view
    }

    /// `sha256:HEX` of the public key: what joining nodes pin.
    pub fn hash(&self) -> &str {
        &self.view.spki_hash
    }

    /// Signs a certificate for a fresh key. Server certificates carry the CA behind them, so that a joining node that
    /// knows only its hash finds it in the handshake.
    pub fn issue(&self, request: &CertificateRequest, now: i64) -> PkiResult<Credential> {
        let key = issue::new_key()?;
        let mut params = request.params(now)?;
        self.cap_validity(&mut params);
        let certificate =
            params.signed_by(&key, &self.issuer).map_err(|e| PkiError::crypto("sign the certificate", e))?;
        let mut certificate_pem = certificate.pem();
        if request.usage != Usage::Client {
            certificate_pem.push_str(&self.certificate_pem);
        }
        Ok(Credential { certificate_pem, key_pem: key.serialize_pem() })
    }

    /// Signs a request whose signer rules were checked: its subject, names and key, with these usages and this life.
    pub fn sign(&self, csr: &CsrView, usages: &[String], life: Duration, now: i64) -> PkiResult<String> {
        let mut signed = csr.parsed(usages)?;
        issue::set_validity(&mut signed.params, now, life);
        self.cap_validity(&mut signed.params);
        let certificate =
            signed.signed_by(&self.issuer).map_err(|e| PkiError::crypto("sign the certificate request", e))?;
        Ok(certificate.pem())
    }

    /// Loads `NAME.crt` and `NAME.key`, or issues them anew where they are missing, unreadable, signed by another
    /// authority, named differently than asked, or due for renewal. Leaf certificates are replaceable, so nothing
    /// needs a human here.
    pub fn load_or_issue(
        &self,
        folder: &Path,
        name: &str,
        request: &CertificateRequest,
        now: i64,
    ) -> PkiResult<Credential> {
        files::make_private_dir(folder)?;
        let (certificate_path, key_path) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        let kept = (files::read_optional(&certificate_path)?, files::read_optional(&key_path)?);
        if let (Some(certificate_pem), Some(key_pem)) = kept
            && self.still_serves(&certificate_pem, &key_pem, request, now)
        {
            return Ok(Credential { certificate_pem, key_pem });
        }
        let credential = self.issue(request, now)?;
        files::write_atomic(&key_path, credential.key_pem.as_bytes(), SECRET_MODE)?;
        files::write_atomic(&certificate_path, credential.certificate_pem.as_bytes(), PUBLIC_MODE)?;
        Ok(credential)
    }

    fn still_serves(&self, certificate_pem: &str, key_pem: &str, request: &CertificateRequest, now: i64) -> bool {
        let Ok(der) = first_der(certificate_pem) else { return false };
        let Ok(view) = CertificateView::from_der(&der) else { return false };
        let Ok(key) = KeyPair::from_pem(key_pem) else { return false };
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        let ips = |ips: &[std::net::IpAddr]| sorted(ips.iter().map(ToString::to_string).collect());
        !crate::needs_renewal(&view, now)
            && key_matches(&der, &key).unwrap_or(false)
            && self.signed(&der)
            && view.common_name == request.common_name
            && view.organizations.first() == request.organization.as_ref()
            && sorted(view.dns_names.clone()) == sorted(request.dns_names.clone())
            && ips(&view.ips) == ips(&request.ips)
    }

    /// Whether this authority signed the certificate.
    pub fn signed(&self, certificate_der: &[u8]) -> bool {
        use x509_parser::prelude::{FromDer, X509Certificate};
        let (Ok((_, own)), Ok((_, other))) =
            (X509Certificate::from_der(&self.certificate_der), X509Certificate::from_der(certificate_der))
        else {
            return false;
        };
        other.verify_signature(Some(own.public_key())).is_ok()
    }

    /// No certificate outlives the authority.
    fn cap_validity(&self, params: &mut CertificateParams) {
        let end = Duration::from_secs(u64::try_from(self.view.not_after).unwrap_or_default());
        params.not_after = params.not_after.min(rcgen::date_time_ymd(1970, 1, 1) + end);
    }
}

fn key_matches(certificate_der: &[u8], key: &KeyPair) -> PkiResult<bool> {
    use rcgen::PublicKeyData;
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, certificate) =
        X509Certificate::from_der(certificate_der).map_err(|e| PkiError::crypto("read the certificate", e))?;
    Ok(certificate.public_key().raw == key.subject_public_key_info())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn an_authority_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(dir.path(), "ca", "kubernetes", NOW).unwrap();
        let second = Authority::load_or_create(dir.path(), "ca", "kubernetes", NOW + 5).unwrap();
        assert_eq!(first.hash(), second.hash());
        assert!(first.hash().starts_with("sha256:") && first.hash().len() == 7 + 64);
        let mode = std::fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_crash_between_key_and_certificate_heals() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.key"), "half").unwrap();
        Authority::load_or_create(dir.path(), "ca", "kubernetes", NOW).unwrap();
        Authority::load_or_create(dir.path(), "ca", "kubernetes", NOW).unwrap();
    }

    #[test]
    fn damaged_files_are_named_with_a_next_step() {
        let dir = tempfile::tempdir().unwrap();
        Authority::load_or_create(dir.path(), "ca", "kubernetes", NOW).unwrap();
        let error = |what: &str| {
            let text = Authority::load_or_create(dir.path(), "ca", "kubernetes", NOW).unwrap_err().to_string();
            assert!(text.contains(what) && text.contains("restore"), "{text}");
        };
        let key = std::fs::read(dir.path().join("ca.key")).unwrap();
        std::fs::write(dir.path().join("ca.key"), "garbage").unwrap();
        error("ca.key holds no readable private key");
        Authority::load_or_create(&dir.path().join("other"), "ca", "kubernetes", NOW).unwrap();
        std::fs::copy(dir.path().join("other/ca.key"), dir.path().join("ca.key")).unwrap();
        error("the private key does not belong to the certificate");
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        error("ca.key is missing");
        std::fs::write(dir.path().join("ca.key"), key).unwrap();
        std::fs::write(dir.path().join("ca.crt"), "garbage").unwrap();
        error("ca.crt holds no readable certificate");
    }

    #[test]
    fn leaves_are_reissued_when_due_or_changed() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path(), "ca", "kubernetes", NOW).unwrap();
        let issue = |request: &CertificateRequest, now| {
            authority.load_or_issue(dir.path(), "leaf", request, now).unwrap().certificate_pem
        };
        let request = CertificateRequest::kubelet("one");
        let first = issue(&request, NOW);
        assert_eq!(first, issue(&request, NOW + 86_400));
        let view = CertificateView::from_pem(&first).unwrap();
        assert_eq!((view.common_name.as_str(), view.organizations.len()), ("system:node:one", 1));
        assert!(view.client_auth && !view.server_auth && !view.is_ca);
        let renewed = issue(&request, NOW + 300 * 86_400);
        assert_ne!(first, renewed);
        assert_ne!(renewed, issue(&CertificateRequest::kubelet("two"), NOW + 300 * 86_400));
    }
}

//! TLS configurations: a server that asks for client certificates without demanding them, clients that know the CA or its hash.

use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::inspect::{CertificateView, spki_hash};
use crate::issue::Credential;
use crate::{PkiError, PkiResult};

/// Protocols offered, the preferred one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The one crypto provider of the program.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The certificates of a PEM bundle as trust anchors.
pub fn roots(bundle_pem: &str) -> PkiResult<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(bundle_pem)? {
        store.add(certificate).map_err(|e| PkiError::crypto("trust the CA certificate", e))?;
    }
    Ok(store)
}

fn certificates(pem: &str) -> PkiResult<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|e| PkiError::crypto("read the certificates", e))?;
    if all.is_empty() {
        return Err(PkiError::Rejected("the PEM text holds no certificate".to_owned()));
    }
    Ok(all)
}

fn private_key(pem: &str) -> PkiResult<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| PkiError::crypto("read the private key", e))
}

/// A serving certificate that can be replaced while connections are open.
#[derive(Debug)]
pub struct ServingCertificate(RwLock<Arc<CertifiedKey>>);

impl ServingCertificate {
    pub fn new(credential: &Credential) -> PkiResult<Arc<Self>> {
        Ok(Arc::new(Self(RwLock::new(certified_key(credential)?))))
    }

    /// New handshakes show the new certificate; open connections keep theirs.
    pub fn replace(&self, credential: &Credential) -> PkiResult<()> {
        let key = certified_key(credential)?;
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = key;
        Ok(())
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone())
    }
}

fn certified_key(credential: &Credential) -> PkiResult<Arc<CertifiedKey>> {
    let chain = certificates(&credential.certificate_pem)?;
    let key = private_key(&credential.key_pem)?;
    CertifiedKey::from_der(chain, key, &provider())
        .map(Arc::new)
        .map_err(|e| PkiError::crypto("use the serving certificate", e))
}

/// A server that requests client certificates but lets everybody finish the handshake: an expired or foreign
/// certificate is answered with 401 by the authenticator (see [`ClientAuthority::verify`]), as upstream does, instead
/// of with a broken connection.
pub fn server_config(serving: Arc<ServingCertificate>, clients: &ClientAuthority) -> PkiResult<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| PkiError::crypto("set up TLS", e))?
        .with_client_cert_verifier(Arc::new(AskOnly(clients.0.clone())))
        .with_cert_resolver(serving);
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    Ok(config)
}

/// A client that trusts `ca_pem` only, showing `credential` where it has one.
pub fn client_config(ca_pem: &str, credential: Option<&Credential>) -> PkiResult<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| PkiError::crypto("set up TLS", e))?
        .with_root_certificates(roots(ca_pem)?);
    let mut config = match credential {
        None => builder.with_no_client_auth(),
        Some(credential) => builder
            .with_client_auth_cert(certificates(&credential.certificate_pem)?, private_key(&credential.key_pem)?)
            .map_err(|e| PkiError::crypto("use the client certificate", e))?,
    };
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    Ok(config)
}

/// Decides which client certificates are believed.
#[derive(Clone, Debug)]
pub struct ClientAuthority(Arc<dyn ClientCertVerifier>);

impl ClientAuthority {
    pub fn new(ca_pem: &str) -> PkiResult<Self> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| PkiError::crypto("set up client certificate checks", e))?;
        Ok(Self(verifier))
    }

    /// Checks the chain that a connection showed (leaf first) at `now` (seconds since the epoch) and answers who it is.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: i64) -> PkiResult<CertificateView> {
        let [leaf, intermediates @ ..] = chain else {
            return Err(PkiError::Rejected("no client certificate was shown".to_owned()));
        };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
        self.0
            .verify_client_cert(leaf, intermediates, now)
            .map_err(|e| PkiError::Rejected(format!("the client certificate is not valid: {e}")))?;
        CertificateView::from_der(leaf)
    }
}

/// Asks for a certificate, checks only that the peer holds its key.
#[derive(Debug)]
struct AskOnly(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AskOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Believes a server whose chain ends in the CA with a given public key hash, and remembers that CA.
#[derive(Debug)]
pub struct PinnedCa {
    pin: String,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl PinnedCa {
    /// `pin` is `sha256:HEX` of the CA's SubjectPublicKeyInfo.
    pub fn new(pin: &str) -> Arc<Self> {
        Arc::new(Self { pin: pin.to_ascii_lowercase(), found: Mutex::new(None) })
    }

    /// The CA of the last successful handshake, as PEM.
    pub fn ca_pem(&self) -> Option<String> {
        let found = self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        found.as_ref().map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der.to_vec())))
    }

    /// A client without a certificate of its own that believes only the pinned CA.
    pub fn client_config(self: &Arc<Self>) -> PkiResult<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| PkiError::crypto("set up TLS", e))?
            .dangerous()
            .with_custom_certificate_verifier(self.clone())
            .with_no_client_auth();
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
        Ok(config)
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let wrong = || {
            TlsError::General(format!(
                "the server's certificate authority is not the one with the hash {} that the token names",
                self.pin
            ))
        };
        let ca = chain.iter().find(|c| spki_hash(c).is_ok_and(|hash| hash == self.pin)).ok_or_else(wrong)?;
        let mut store = RootCertStore::empty();
        store.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
            .build()
            .map_err(|e| TlsError::General(e.to_string()))?;
        let verified = verifier.verify_server_cert(leaf, chain, name, ocsp, now)?;
        *self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(ca.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

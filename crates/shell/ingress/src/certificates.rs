//! Certificates from Secrets: followed one by one by name, checked, and chosen by the name that a client asks for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use client::{Informer, InformerConfig};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use routes::Key;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::limits::CERTIFICATES_MAX;
use crate::serving::Serving;

/// What a Secret gave: a certificate, or why it gives none.
pub type Loaded = Result<Arc<CertifiedKey>, String>;

/// Reads a Secret of type `kubernetes.io/tls`.
fn load(secret: Secret) -> Loaded {
    let data = secret.data.unwrap_or_default();
    let field = |name: &str| data.get(name).map(|bytes| bytes.0.as_slice()).ok_or(format!("it has no {name}"));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(field("tls.crt")?).collect();
    let chain = chain.map_err(|error| format!("tls.crt is no PEM: {error}"))?;
    if chain.is_empty() {
        return Err("tls.crt holds no certificate".to_owned());
    }
    let key =
        PrivateKeyDer::from_pem_slice(field("tls.key")?).map_err(|error| format!("tls.key is no key: {error}"))?;
    match CertifiedKey::from_der(chain, key, &pki::tls::provider()) {
        Ok(certified) => Ok(Arc::new(certified)),
        Err(rustls::Error::InconsistentKeys(_)) => Err("tls.key does not belong to tls.crt".to_owned()),
        Err(error) => Err(format!("it cannot be used: {error}")),
    }
}

struct Followed {
    informer: Informer<Loaded>,
    stop: CancellationToken,
}

/// Follows the Secrets that somebody refers to, and no others.
pub struct Follower {
    client: Client,
    wake: Arc<Notify>,
    stop: CancellationToken,
    secrets: BTreeMap<Key, Followed>,
}

impl Follower {
    /// `wake` is notified when any of the Secrets changes.
    pub fn new(client: Client, wake: Arc<Notify>, stop: CancellationToken) -> Self {
        Self { client, wake, stop, secrets: BTreeMap::new() }
    }

    /// Follows exactly these from now on; beyond the limit the last ones are left out.
    pub fn follow(&mut self, wanted: &BTreeSet<Key>) {
        self.secrets.retain(|key, followed| {
            let keep = wanted.contains(key);
            if !keep {
                followed.stop.cancel();
            }
            keep
        });
        for key in wanted.iter().take(CERTIFICATES_MAX) {
            if self.secrets.contains_key(key) {
                continue;
            }
            let config = InformerConfig::all(format!("/api/v1/namespaces/{}/secrets", key.namespace))
                .fields(format!("metadata.name={}", key.name));
            let stop = self.stop.child_token();
            let informer = Informer::start(self.client.clone(), config, load, &[], stop.clone());
            crate::world::wake_on(&informer, &self.wake);
            self.secrets.insert(key.clone(), Followed { informer, stop });
        }
        if wanted.len() > CERTIFICATES_MAX {
            tracing::warn!(
                wanted = wanted.len(),
                CERTIFICATES_MAX,
                "too many certificates; the last ones are not served"
            );
        }
    }

    /// What each Secret gave; one that is not read yet is left out.
    pub fn loaded(&self) -> BTreeMap<Key, Loaded> {
        let read = |(key, followed): (&Key, &Followed)| {
            let found = followed.informer.get(&key.namespace, &key.name);
            match found {
                Some(cached) => Some((key.clone(), cached.view.clone())),
                None if followed.informer.is_synced() => Some((key.clone(), Err("it does not exist".to_owned()))),
                None => None,
            }
        };
        self.secrets.iter().filter_map(read).collect()
    }
}

/// The certificates in force. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<ArcSwap<HashMap<Key, Arc<CertifiedKey>>>>);

impl Store {
    /// New handshakes show these; open connections keep what they were shown. A certificate that became unusable is
    /// shown no longer.
    pub fn replace(&self, loaded: &BTreeMap<Key, Loaded>) {
        let usable = |(key, loaded): (&Key, &Loaded)| Some((key.clone(), loaded.as_ref().ok()?.clone()));
        self.0.store(Arc::new(loaded.iter().filter_map(usable).collect()));
    }
}

/// Chooses the certificate on one port.
struct Resolver {
    port: u16,
    serving: Serving,
    store: Store,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("port", &self.port).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let (live, known) = (self.serving.live(), self.store.0.load());
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let mut named = live.table.certificates(self.port, name.as_deref());
        if let Some(found) = named.find_map(|key| known.get(key)) {
            return Some(found.clone());
        }
        // Who names nobody gets the first certificate that there is.
        let all = name.is_none().then(|| live.table.secrets())?;
        all.iter().find_map(|key| known.get(key)).cloned()
    }
}

/// The TLS configuration of a port.
///
/// # Errors
/// The crypto provider refuses its own defaults.
pub fn server_config(port: u16, serving: &Serving, store: &Store) -> Result<ServerConfig, rustls::Error> {
    let builder: ConfigBuilder<ServerConfig, WantsVerifier> =
        ServerConfig::builder_with_provider(pki::tls::provider()).with_safe_default_protocol_versions()?;
    let resolver = Resolver { port, serving: serving.clone(), store: store.clone() };
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

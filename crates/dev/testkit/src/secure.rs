//! An API server over HTTPS with everything that decides who may do what, and the authority behind it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use access::User;
use apiserver::ApiServer;
use apiserver::auth::{Keys, Security};
use kube::Client;
use pki::{Authority, CertificateRequest, TokenSigner};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::MemoryStore;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Stops when dropped.
pub struct SecureServer {
    pub server: ApiServer,
    pub ca: Arc<Authority>,
    pub url: String,
    pub stop: CancellationToken,
    pub folder: tempfile::TempDir,
}

impl Drop for SecureServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl SecureServer {
    /// # Panics
    /// The server does not start.
    pub async fn start() -> Self {
        let now = jiff::Timestamp::now().as_second();
        let folder = tempfile::tempdir().unwrap();
        let ca = Arc::new(Authority::generate("kubernetes", now).unwrap());
        let tokens = TokenSigner::load_or_create(folder.path(), ISSUER).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let keys = Keys { client_ca_pem: ca.certificate_pem().to_owned(), tokens, public_url: url.clone() };
        let security = Security::new(keys).unwrap();
        let stop = CancellationToken::new();
        let server = ApiServer::start(security.config(), Arc::new(MemoryStore::default()), stop.clone()).await.unwrap();
        security.attach(server.engine()).await.unwrap();
        let serving = CertificateRequest::apiserver(IpAddr::from([10, 96, 0, 1]), "cluster.local", &[], &[]);
        let serving = pki::tls::ServingCertificate::new(&ca.issue(&serving, now).unwrap()).unwrap();
        let clients = pki::tls::ClientAuthority::new(ca.certificate_pem()).unwrap();
        let tls = Arc::new(pki::tls::server_config(serving, &clients).unwrap());
        let listening = server.clone();
        tokio::spawn(async move { listening.serve(listener, tls).await });
        Self { server, ca, url, stop, folder }
    }

    pub fn admin(&self) -> Client {
        self.server.client_as(crate::admin())
    }

    pub fn user(&self, name: &str, groups: &[&str]) -> Client {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        self.server.client_as(User { name: name.to_owned(), groups, ..User::default() })
    }
}

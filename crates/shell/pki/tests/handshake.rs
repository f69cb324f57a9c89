//! Real handshakes on loopback: who is believed, who is not, and why.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pki::tls::{self, ClientAuthority, PinnedCa, ServingCertificate};
use pki::{Authority, CertificateRequest, CertificateView, Credential};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn serving() -> CertificateRequest {
    CertificateRequest::apiserver(IpAddr::from([10, 96, 0, 1]), "cluster.local", &[], &[])
}

/// Accepts one connection and answers it with the name on the client's certificate, or why it is not believed.
async fn serve_once(ca: &Authority, credential: &Credential) -> SocketAddr {
    let clients = ClientAuthority::new(ca.certificate_pem()).unwrap();
    let config = tls::server_config(ServingCertificate::new(credential).unwrap(), &clients).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await else { return };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let answer = match clients.verify(&chain, now()) {
            Ok(view) => format!("{} {:?}", view.common_name, view.organizations),
            Err(error) => error.to_string(),
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    address
}

async fn ask(address: SocketAddr, config: ClientConfig) -> Result<String, String> {
    let exchange = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(|e| e.to_string())?;
        Ok(answer)
    };
    tokio::time::timeout(Duration::from_secs(20), exchange).await.expect("the handshake ends")
}

#[tokio::test]
async fn a_client_certificate_names_the_user() {
    let ca = Authority::generate("kubernetes", now()).unwrap();
    let address = serve_once(&ca, &ca.issue(&serving(), now()).unwrap()).await;
    let admin = ca.issue(&CertificateRequest::admin(), now()).unwrap();
    let answer = ask(address, tls::client_config(ca.certificate_pem(), Some(&admin)).unwrap()).await.unwrap();
    assert_eq!(answer, "kubernetes-admin [\"system:masters\"]");
}

#[tokio::test]
async fn without_a_certificate_the_handshake_still_ends_well() {
    let ca = Authority::generate("kubernetes", now()).unwrap();
    let address = serve_once(&ca, &ca.issue(&serving(), now()).unwrap()).await;
    let answer = ask(address, tls::client_config(ca.certificate_pem(), None).unwrap()).await.unwrap();
    assert_eq!(answer, "no client certificate was shown");
}

#[tokio::test]
async fn expired_and_foreign_clients_are_not_believed() {
    let ca = Authority::generate("kubernetes", now()).unwrap();
    let other = Authority::generate("kubernetes", now()).unwrap();
    let server = ca.issue(&serving(), now()).unwrap();
    let mut request = CertificateRequest::admin();
    request.life = Duration::from_secs(60);
    let expired = ca.issue(&request, now() - 3600).unwrap();
    let foreign = other.issue(&CertificateRequest::admin(), now()).unwrap();
    let serving_only = ca.issue(&serving(), now()).unwrap();
    for credential in [expired, foreign, serving_only] {
        let address = serve_once(&ca, &server).await;
        let answer = ask(address, tls::client_config(ca.certificate_pem(), Some(&credential)).unwrap()).await.unwrap();
        assert!(answer.starts_with("the client certificate is not valid"), "{answer}");
    }
}

#[tokio::test]
async fn clients_refuse_a_wrong_or_expired_server() {
    let ca = Authority::generate("kubernetes", now()).unwrap();
    let other = Authority::generate("kubernetes", now()).unwrap();
    let address = serve_once(&ca, &other.issue(&serving(), now()).unwrap()).await;
    assert!(ask(address, tls::client_config(ca.certificate_pem(), None).unwrap()).await.is_err());
    let mut request = serving();
    request.life = Duration::from_secs(60);
    let address = serve_once(&ca, &ca.issue(&request, now() - 3600).unwrap()).await;
    let error = ask(address, tls::client_config(ca.certificate_pem(), None).unwrap()).await.unwrap_err();
    assert!(error.contains("xpired"), "{error}");
}

#[tokio::test]
async fn the_hash_of_the_authority_is_enough_to_find_it() {
    let ca = Authority::generate("kubernetes", now()).unwrap();
    let credential = ca.issue(&serving(), now()).unwrap();
    let pinned = PinnedCa::new(ca.hash());
    let address = serve_once(&ca, &credential).await;
    ask(address, pinned.client_config().unwrap()).await.unwrap();
    let found = CertificateView::from_pem(&pinned.ca_pem().unwrap()).unwrap();
    assert_eq!(found.spki_hash, ca.hash());

    let wrong = PinnedCa::new(&format!("sha256:{}", "00".repeat(32)));
    let address = serve_once(&ca, &credential).await;
    let error = ask(address, wrong.client_config().unwrap()).await.unwrap_err();
    assert!(error.contains("is not the one with the hash"), "{error}");
    assert!(wrong.ca_pem().is_none());
}

#[tokio::test]
async fn a_leaf_that_only_travels_with_the_pinned_authority_is_refused() {
    let (ca, other) = (Authority::generate("a", now()).unwrap(), Authority::generate("b", now()).unwrap());
    let mut credential = other.issue(&serving(), now()).unwrap();
    credential.certificate_pem.push_str(ca.certificate_pem());
    let address = serve_once(&ca, &credential).await;
    assert!(ask(address, PinnedCa::new(ca.hash()).client_config().unwrap()).await.is_err());
}

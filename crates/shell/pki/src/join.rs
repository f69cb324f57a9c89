//! How a machine becomes a node: trust the cluster by its hash, be trusted by a token, get a certificate, renew it.
//!
//! Everything a node keeps is one file, a kubeconfig with the CA, the certificate and its key embedded. It is replaced
//! as a whole, so a crash at any instant leaves either the old identity or the new one.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec, CertificateSigningRequestStatus,
};
use kube::api::{Api, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Client, Config};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::inspect::{CertificateView, needs_renewal};
use crate::issue::Credential;
use crate::kubeconfig::{Kubeconfig, UserAuth};
use crate::tls::PinnedCa;
use crate::{JoinToken, PkiError, PkiResult, csr};

/// How long one attempt to reach the server may take.
pub const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a certificate request may wait for its approval and signature.
pub const CERTIFICATE_WAIT_MAX: Duration = Duration::from_secs(120);
/// Pauses between attempts to join or renew grow to this.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often a certificate's age is looked at: clocks jump, so one long sleep would not do.
const RENEWAL_CHECK: Duration = Duration::from_secs(60);

/// What a kubelet's certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To call the API server.
    Client,
    /// To serve logs and exec on these names and addresses.
    Serving { dns_names: Vec<String>, ips: Vec<IpAddr> },
}

/// Fetches the CA of the cluster at `https://HOST:PORT`, believing only one with this hash.
pub async fn fetch_ca(server: &str, ca_hash: &str) -> PkiResult<String> {
    let (host, port) = host_and_port(server)?;
    let pinned = PinnedCa::new(ca_hash);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(pinned.client_config()?));
    let name = ServerName::try_from(host.clone())
        .map_err(|_| PkiError::Rejected(format!("{host:?} is neither a host name nor an address")))?;
    let unreachable = |cause: &dyn std::fmt::Display| {
        PkiError::Unreachable(format!(
            "cannot reach the API server at {server}: {cause}; check the address and that the server runs"
        ))
    };
    let handshake = async {
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| unreachable(&e))?;
        connector.connect(name, stream).await.map_err(|error| {
            let is_tls = error.get_ref().is_some_and(|e| e.is::<rustls::Error>());
            if !is_tls {
                return unreachable(&error);
            }
            PkiError::Rejected(format!(
                "the server at {server} is not the cluster that the token is for: {error}; take a fresh token from \
                 `tug token create` on that cluster"
            ))
        })
    };
    tokio::time::timeout(CONNECT_MAX, handshake).await.map_err(|_| unreachable(&"no answer in time"))??;
    pinned.ca_pem().ok_or_else(|| PkiError::Crypto("the handshake ended without a certificate authority".to_owned()))
}

fn host_and_port(server: &str) -> PkiResult<(String, u16)> {
    let wrong = || PkiError::Rejected(format!("{server:?} is not of the form https://HOST:PORT"));
    let authority = server.strip_prefix("https://").ok_or_else(wrong)?.trim_end_matches('/');
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (authority, 443),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains('/') { Err(wrong()) } else { Ok((host.to_owned(), port)) }
}

/// A client for the cluster and user of a kubeconfig.
pub async fn client(kubeconfig: &Kubeconfig) -> PkiResult<Client> {
    let failed = |e: &dyn std::fmt::Display| PkiError::crypto("make a client of the kubeconfig", e);
    let parsed = kube::config::Kubeconfig::from_yaml(&kubeconfig.to_yaml()?).map_err(|e| failed(&e))?;
    let config = Config::from_custom_kubeconfig(parsed, &Default::default()).await.map_err(|e| failed(&e))?;
    Client::try_from(config).map_err(|e| failed(&e))
}

/// Asks for a certificate for `system:node:NODE` with a fresh key and waits until it is issued.
pub async fn request_certificate(client: &Client, node: &str, purpose: &Purpose) -> PkiResult<Credential> {
    let (signer, usage, dns_names, ips) = match purpose {
        Purpose::Client => ("kubernetes.io/kube-apiserver-client-kubelet", "client auth", &[][..], &[][..]),
        Purpose::Serving { dns_names, ips } => {
            ("kubernetes.io/kubelet-serving", "server auth", &dns_names[..], &ips[..])
        }
    };
    let asked = csr::new_csr(&format!("system:node:{node}"), Some("system:nodes"), dns_names, ips)?;
    let mut object = CertificateSigningRequest {
        spec: CertificateSigningRequestSpec {
            request: ByteString(asked.certificate_pem.into_bytes()),
            signer_name: signer.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), usage.to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    };
    object.metadata.generate_name = Some("csr-".to_owned());
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let created =
        api.create(&PostParams::default(), &object).await.map_err(|e| refused("ask for a certificate", &e))?;
    let name = created.metadata.name.unwrap_or_default();
    let decided = await_condition(api, &name, |csr: Option<&CertificateSigningRequest>| {
        csr.and_then(|csr| csr.status.as_ref()).is_some_and(|status| verdict(status).is_some())
    });
    let waited = tokio::time::timeout(CERTIFICATE_WAIT_MAX, decided).await.map_err(|_| {
        PkiError::Unreachable(format!(
            "certificate request {name} was not decided within {} s; see `kubectl get csr {name}`",
            CERTIFICATE_WAIT_MAX.as_secs()
        ))
    })?;
    let decided = waited.map_err(|e| PkiError::Unreachable(format!("waiting for certificate request {name}: {e}")))?;
    match decided.and_then(|csr| csr.status).as_ref().and_then(verdict) {
        Some(Ok(certificate_pem)) => Ok(Credential { certificate_pem, key_pem: asked.key_pem }),
        Some(Err(why)) => Err(PkiError::Rejected(format!("certificate request {name} was refused: {why}"))),
        None => Err(PkiError::Unreachable(format!("certificate request {name} was deleted before it was decided"))),
    }
}

/// A certificate, or why there will be none; None while it is open.
fn verdict(status: &CertificateSigningRequestStatus) -> Option<Result<String, String>> {
    if let Some(ByteString(bytes)) = status.certificate.as_ref().filter(|c| !c.0.is_empty()) {
        return Some(String::from_utf8(bytes.clone()).map_err(|e| e.to_string()));
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let refused = conditions.iter().find(|c| matches!(c.type_.as_str(), "Denied" | "Failed"))?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Some(Err(format!("{} {}: {}", refused.type_, text(&refused.reason), text(&refused.message))))
}

/// A request that the server refused for good, or that may succeed later.
fn refused(action: &str, error: &kube::Error) -> PkiError {
    match error {
        kube::Error::Api(status) if status.code == 401 => PkiError::Rejected(format!(
            "cannot {action}: the token is not known or has expired; take a fresh one from `tug token create`"
        )),
        kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
            PkiError::Rejected(format!("cannot {action}: {}", status.message))
        }
        other => PkiError::Unreachable(format!("cannot {action}: {other}")),
    }
}

/// The node's identity: what is kept in `path` where it is still good for this cluster and node, otherwise a new one
/// by the token, written to `path`. Retries what may pass until `stop`.
pub async fn load_or_join(
    path: &Path,
    server: &str,
    token: Option<&JoinToken>,
    node: &str,
    stop: &CancellationToken,
) -> PkiResult<Kubeconfig> {
    if let Some(kept) = Kubeconfig::read(path)?.filter(|kept| is_good(kept, server, node)) {
        return Ok(kept);
    }
    let token = token.ok_or_else(|| {
        PkiError::Rejected(format!(
            "this machine has no valid node certificate in {}; give a token from `tug token create` with --token",
            path.display()
        ))
    })?;
    let mut pause = Duration::from_millis(250);
    loop {
        match join_once(server, token, node).await {
            Ok(joined) => {
                joined.write(path)?;
                return Ok(joined);
            }
            Err(error) if error.is_retryable() => tracing::warn!(%error, node, "joining the cluster; trying again"),
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = stop.cancelled() => return Err(PkiError::Unreachable("stopped while joining the cluster".to_owned())),
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_PAUSE_MAX),
        }
    }
}

async fn join_once(server: &str, token: &JoinToken, node: &str) -> PkiResult<Kubeconfig> {
    let ca_pem = fetch_ca(server, &token.ca_hash).await?;
    let bootstrap = Kubeconfig::with_token("bootstrap", server, &ca_pem, &token.token.to_string());
    let credential = request_certificate(&client(&bootstrap).await?, node, &Purpose::Client).await?;
    Ok(Kubeconfig::with_certificate(&format!("system:node:{node}"), server, &ca_pem, &credential))
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn certificate_of(kubeconfig: &Kubeconfig) -> Option<CertificateView> {
    match &kubeconfig.auth {
        UserAuth::Certificate(credential) => CertificateView::from_pem(&credential.certificate_pem).ok(),
        UserAuth::Token(_) => None,
    }
}

/// Good until it expires: renewal is the running node's business, with the old certificate in hand.
fn is_good(kept: &Kubeconfig, server: &str, node: &str) -> bool {
    let view = certificate_of(kept);
    kept.server == server && view.is_some_and(|v| v.common_name == format!("system:node:{node}") && v.not_after > now())
}

/// Renews the identity in `path` before it expires, until `stop`. Each new one is written and handed to `renewed`.
pub async fn keep_renewed(
    path: &Path,
    mut current: Kubeconfig,
    node: &str,
    stop: CancellationToken,
    mut renewed: impl FnMut(&Kubeconfig) + Send,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RENEWAL_CHECK) => {}
        }
        if certificate_of(&current).is_some_and(|view| !needs_renewal(&view, now())) {
            continue;
        }
        match renew_once(path, &current, node).await {
            Ok(fresh) => {
                renewed(&fresh);
                current = fresh;
            }
            Err(error) => tracing::warn!(%error, node, "renewing the node's certificate; trying again"),
        }
    }
}

async fn renew_once(path: &Path, current: &Kubeconfig, node: &str) -> PkiResult<Kubeconfig> {
    let credential = request_certificate(&client(current).await?, node, &Purpose::Client).await?;
    let fresh = Kubeconfig { auth: UserAuth::Certificate(credential), ..current.clone() };
    fresh.write(path)?;
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_written_as_urls() {
        let parsed = |text| host_and_port(text).ok().map(|(host, port)| format!("{host} {port}"));
        assert_eq!(parsed("https://10.0.0.1:6443").as_deref(), Some("10.0.0.1 6443"));
        assert_eq!(parsed("https://[fd00::1]:6443/").as_deref(), Some("fd00::1 6443"));
        assert_eq!(parsed("https://api.example").as_deref(), Some("api.example 443"));
        for bad in ["10.0.0.1:6443", "http://a", "https://", "https://a:b", "https://a/b"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn an_identity_is_kept_while_it_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet.kubeconfig");
        let ca = crate::Authority::generate("kubernetes", now()).unwrap();
        let credential = ca.issue(&crate::CertificateRequest::kubelet("a"), now()).unwrap();
        let (server, stop) = ("https://127.0.0.1:1", CancellationToken::new());
        let kept = Kubeconfig::with_certificate("system:node:a", server, ca.certificate_pem(), &credential);
        kept.write(&path).unwrap();
        assert_eq!(load_or_join(&path, server, None, "a", &stop).await.unwrap(), kept);
        for (server, node) in [(server, "b"), ("https://127.0.0.1:2", "a")] {
            let error = load_or_join(&path, server, None, node, &stop).await.unwrap_err().to_string();
            assert!(error.contains("--token"), "{error}");
        }
        client(&kept).await.unwrap();
    }
}

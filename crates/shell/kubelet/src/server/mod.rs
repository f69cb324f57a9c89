//! The kubelet's own HTTPS server: logs, exec, attach and port-forward of this node's containers.
//!
//! Only the API server and the nodes of the cluster reach it, by client certificates of the cluster's authority. What a
//! user may do was decided by the API server before it came here.

mod logs;
mod machine_logs;
mod routes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use logs::LogQuery;
pub use routes::{Caller, Refusal};
pub use streams::remote_command::Streams;

/// A client has this long to finish the TLS handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// After a failed accept (too many open files), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A container as the server needs it.
#[derive(Clone, Debug)]
pub struct ContainerTarget {
    /// The runtime's id of the current container; None before the first was made.
    pub id: Option<String>,
    /// Log file of the current container, and of the one before it.
    pub log: Option<PathBuf>,
    pub previous_log: Option<PathBuf>,
    pub running: bool,
    /// Why there is no container yet: `ContainerCreating`, `PodInitializing`, ...
    pub waiting_reason: Option<String>,
}

/// Why the node cannot name a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    NoPod,
    NoContainer,
}

/// What the server asks of the node it runs on.
#[async_trait]
pub trait NodeView: Send + Sync + 'static {
    /// A container of a pod bound to this node; init and ephemeral containers too.
    async fn container(&self, namespace: &str, pod: &str, container: &str) -> Result<ContainerTarget, LookupError>;

    /// The runtime's id of a pod's running sandbox.
    async fn sandbox(&self, namespace: &str, pod: &str) -> Result<String, LookupError>;

    /// Whether a container still runs: a followed log ends with it.
    async fn is_running(&self, container_id: &str) -> bool;

    /// The runtime's URL that serves one stream of this kind.
    async fn exec_url(&self, container_id: &str, command: &[String], streams: Streams) -> anyhow::Result<String>;
    async fn attach_url(&self, container_id: &str, streams: Streams) -> anyhow::Result<String>;
    async fn port_forward_url(&self, sandbox_id: &str, ports: &[u16]) -> anyhow::Result<String>;

    /// Whether none of these addresses is a backend of any Service in this node's rules any more; waits for it no
    /// longer than `at_most`.
    async fn withdrawn(&self, addresses: &[std::net::IpAddr], at_most: Duration) -> bool;

    /// Makes, grows or removes a disk. What the node cannot do is part of the answer (`refused`); an error is worth
    /// another try.
    async fn disk(&self, name: &str, work: DiskWork) -> anyhow::Result<serde_json::Value>;

    /// `/pods`, `/stats/summary`, `/metrics` and other documents by path and query; None where there is no such document.
    async fn document(&self, path: &str, query: &[(String, String)]) -> Option<Document>;
}

/// What is asked about a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskWork {
    Create { bytes: u64, block: bool },
    Grow { bytes: u64 },
    Remove,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct DiskRequest {
    bytes: u64,
    block: bool,
}

/// Something to read about the node.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// An object.
    Json(serde_json::Value),
    /// Metrics in Prometheus' text format.
    Metrics(String),
}

/// Says who a client certificate chain belongs to.
pub type Identify = Arc<dyn Fn(&[CertificateDer<'_>]) -> Option<Caller> + Send + Sync>;

/// Listens and serves until cancelled.
///
/// # Errors
/// The address cannot be listened on: another kubelet has it.
pub async fn run(
    address: SocketAddr,
    tls: Arc<ServerConfig>,
    identify: Identify,
    node: Arc<dyn NodeView>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| anyhow::Error::new(error).context(format!("the kubelet cannot listen on {address}")))?;
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the kubelet's server cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (acceptor, identify, node, stop) = (acceptor.clone(), identify.clone(), node.clone(), stop.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await else { return };
            let caller = tls.get_ref().1.peer_certificates().and_then(|chain| identify(chain));
            let service = hyper::service::service_fn(move |request| {
                let (node, caller) = (node.clone(), caller.clone());
                async move { Ok::<_, std::convert::Infallible>(routes::answer(node, caller, request).await) }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
            tokio::select! {
                () = stop.cancelled() => {}
                outcome = connection => if let Err(error) = outcome {
                    tracing::trace!(%error, "a connection to the kubelet ended early");
                },
            }
        });
    }
}

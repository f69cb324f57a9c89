//! Before a container gets SIGTERM, no node's rules may lead new connections to it.
//!
//! The rules of a terminating pod's own node are all it takes to know whether the pod serves anything. If it does, or did
//! a moment ago, the kubelet waits for these rules and asks the kubelets of the other nodes at the same time. Every wait
//! has an end: a node that does not answer delays a pod's end, it never prevents it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use client::{Informer, InformerConfig};
use futures::future::join_all;
use http::Request;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// An endpoint that stays in the rules longer than this is the last of its Service, kept on purpose.
const HERE_MAX: Duration = Duration::from_millis(1000);
/// How long another node may take, connection included.
const PEER_MAX: Duration = Duration::from_millis(1500);
/// How long a container's start waits for the pod's network policies before it is tried again later.
const GUARDED_MAX: Duration = Duration::from_secs(5);
/// The part of it that the peer itself may wait.
const PEER_WAIT_MS: u64 = 1000;

/// The rules of this node.
#[async_trait]
pub trait Rules: Send + Sync + 'static {
    /// Whether the rules lead nowhere to these addresses; waits for it no longer than `at_most`.
    async fn withdrawn(&self, addresses: &[IpAddr], at_most: Duration) -> bool;

    /// Whether the rules lead to one of these addresses, or did until a moment ago.
    fn lead_to(&self, addresses: &[IpAddr]) -> bool;

    /// Whether network policies are in force for a pod at these addresses; waits for it no longer than `at_most`.
    async fn guarded(&self, namespace: &str, name: &str, addresses: &[IpAddr], at_most: Duration) -> bool;
}

/// Waits until a pod's addresses have left the rules of all nodes.
pub struct Withdrawal {
    node_name: String,
    rules: Arc<dyn Rules>,
    peers: Informer<Option<SocketAddr>>,
    tls: TlsConnector,
}

impl Withdrawal {
    /// `tls` shows this node's certificate to the other kubelets.
    pub fn new(
        node_name: &str,
        client: Client,
        rules: Arc<dyn Rules>,
        tls: ClientConfig,
        stop: CancellationToken,
    ) -> Self {
        let mut tls = tls;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let peers =
            Informer::start(client, InformerConfig::all("/api/v1/nodes"), |node: Node| address(&node), &[], stop);
        Self { node_name: node_name.to_owned(), rules, peers, tls: TlsConnector::from(Arc::new(tls)) }
    }

    /// Waits for the rules of this node only.
    pub async fn here(&self, addresses: &[IpAddr], at_most: Duration) -> bool {
        self.rules.withdrawn(addresses, at_most).await
    }

    /// Waits until network policies guard a pod, which must be so before its first container starts.
    pub async fn guarded(&self, namespace: &str, name: &str, addresses: &[IpAddr]) -> bool {
        self.rules.guarded(namespace, name, addresses, GUARDED_MAX).await
    }

    /// Waits for all nodes, at most about one and a half seconds.
    pub async fn everywhere(&self, addresses: &[IpAddr]) {
        // An address that this node's rules do not hold is no backend anywhere: nothing to wait for.
        if addresses.is_empty() || !self.rules.lead_to(addresses) {
            return;
        }
        tokio::join!(self.here(addresses, HERE_MAX), self.elsewhere(addresses));
    }

    async fn elsewhere(&self, addresses: &[IpAddr]) {
        let peers: Vec<SocketAddr> = self
            .peers
            .list()
            .iter()
            .filter(|node| node.key.name != self.node_name)
            .filter_map(|node| node.view)
            .collect();
        let asked = peers.into_iter().map(|peer| tokio::time::timeout(PEER_MAX, self.ask(peer, addresses)));
        for outcome in join_all(asked).await {
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "another node did not say whether its rules let go"),
                Err(_) => tracing::debug!("another node did not answer in time whether its rules let go"),
            }
        }
    }

    async fn ask(&self, peer: SocketAddr, addresses: &[IpAddr]) -> anyhow::Result<()> {
        let stream = TcpStream::connect(peer).await?;
        let stream = self.tls.connect(ServerName::from(peer.ip()), stream).await?;
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(driver);
        let ips: Vec<String> = addresses.iter().map(|ip| format!("ip={ip}")).collect();
        let path = format!("/tug/withdrawn?{}&ms={PEER_WAIT_MS}", ips.join("&"));
        let request = Request::get(path).header("Host", peer.to_string()).body(streams::empty())?;
        let answer = sender.send_request(request).await?;
        anyhow::ensure!(answer.status().is_success(), "{peer} answered {}", answer.status());
        driver.abort();
        Ok(())
    }
}

fn address(node: &Node) -> Option<SocketAddr> {
    let status = node.status.as_ref()?;
    let internal = status.addresses.as_ref()?.iter().find(|address| address.type_ == "InternalIP")?;
    let port = status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()?.port;
    Some(SocketAddr::new(internal.address.parse().ok()?, u16::try_from(port).ok()?))
}

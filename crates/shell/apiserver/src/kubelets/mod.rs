//! Requests that end in a container or behind a pod: handed over to the kubelet of its node, or to its address.

mod links;
mod page;
mod pod;
mod proxy;
mod usage;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use meta::{ApiResult, Reason, Status};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use streams::{AnyBody, splice, tunnel, websocket};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::body::{self, Body};
use crate::connect::Connector;
use crate::engine::Engine;
use crate::info::{Query, RequestInfo};

pub use proxy::target_name;
pub(crate) use proxy::{endpoints, unverified_like};
pub use usage::{NodeMetrics, PodMetrics};

/// A node or pod that does not take a connection within this is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A kubelet that is being started refuses connections no longer than this.
const KUBELET_STARTS_WITHIN: Duration = Duration::from_secs(2);
const REDIAL_EVERY: Duration = Duration::from_millis(50);
/// What a kubelet says when it refuses is a sentence, not a document.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
const KUBELET_PORT: u16 = 10250;

/// Host and port.
type Address = (String, u16);

/// Reaches kubelets with the API server's own certificate, and pods directly.
pub struct Kubelets {
    kubelet_tls: TlsConnector,
    /// For `https:` targets of the proxy subresource, whose certificates nobody vouches for.
    unverified_tls: TlsConnector,
}

impl Kubelets {
    /// `kubelet_tls` trusts the cluster's authority and shows the API server's client certificate.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(kubelet_tls: ClientConfig) -> Result<Self, rustls::Error> {
        let mut kubelet_tls = kubelet_tls;
        // Upgrades exist in HTTP/1.1 only.
        kubelet_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let unverified = proxy::unverified(&kubelet_tls)?;
        Ok(Self {
            kubelet_tls: TlsConnector::from(Arc::new(kubelet_tls)),
            unverified_tls: TlsConnector::from(Arc::new(unverified)),
        })
    }

    /// A connection to a kubelet, with the authority of URLs to it.
    async fn dial_kubelet(&self, (host, port): Address) -> ApiResult<(String, TlsStream<TcpStream>)> {
        let stream = dial_starting(&host, port).await?;
        let name = ServerName::try_from(host.clone()).map_err(Status::internal)?;
        let tls = self.kubelet_tls.connect(name, stream).await.map_err(|e| unreachable(&host, port, &e))?;
        Ok((authority(&host, port), tls))
    }
}

/// Where a node's kubelet listens, by its Node object.
fn kubelet_address(engine: &Engine, node: &str) -> ApiResult<Address> {
    let object =
        engine.cached("", "nodes", "", node).ok_or_else(|| unavailable(format!("node {node:?} is not there")))?;
    let object = object.value()?;
    let addresses = object["status"]["addresses"].as_array();
    let by_type = |kind: &str| {
        let found = addresses.into_iter().flatten().find(|a| a["type"] == kind);
        found.and_then(|a| a["address"].as_str()).map(str::to_owned)
    };
    let host = by_type("InternalIP").or_else(|| by_type("Hostname"));
    let host = host.ok_or_else(|| unavailable(format!("node {node:?} has no address")))?;
    let port = object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    Ok((host, port.map_or(KUBELET_PORT, |port| port as u16)))
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn dial(host: &str, port: u16) -> ApiResult<TcpStream> {
    connect(host, port).await.map_err(|error| unreachable(host, port, &error))
}

/// As [`dial`], but a port that refuses is tried again for a moment: pods of a node run before its kubelet's server has a
/// certificate to listen with, and while its kubelet is being replaced.
async fn dial_starting(host: &str, port: u16) -> ApiResult<TcpStream> {
    let end = Instant::now() + KUBELET_STARTS_WITHIN;
    loop {
        match connect(host, port).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < end => {
                tokio::time::sleep(REDIAL_EVERY).await;
            }
            outcome => return outcome.map_err(|error| unreachable(host, port, &error)),
        }
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let connected = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect((host, port))).await;
    let stream = connected.unwrap_or_else(|_| Err(io::Error::new(ErrorKind::TimedOut, "i/o timeout")))?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn unreachable(host: &str, port: u16, cause: &dyn std::fmt::Display) -> Box<Status> {
    Status::internal(format!("error dialing backend: dial tcp {}: {cause}", authority(host, port)))
}

fn unavailable(message: String) -> Box<Status> {
    Status::failure(Reason::ServiceUnavailable, message)
}

fn uri(text: &str) -> ApiResult<Uri> {
    text.parse().map_err(|_| Status::bad_request(format!("{text:?} is no URL")))
}

/// What a kubelet refused becomes the Status that clients know.
async fn with_status(response: Response<AnyBody>) -> ApiResult<Response<Body>> {
    let code = response.status().as_u16();
    if code < 400 {
        return Ok(response);
    }
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
        if bytes.len() > REFUSAL_BYTES_MAX {
            break;
        }
    }
    let message = String::from_utf8_lossy(&bytes).trim().to_owned();
    Err(match code {
        400 => Status::bad_request(message),
        403 => Status::failure(Reason::Forbidden, message),
        404 => Status::failure(Reason::NotFound, message),
        503 => unavailable(message),
        _ => Status::internal(message),
    })
}

#[async_trait]
impl Connector for Kubelets {
    async fn connect(
        &self,
        engine: &Engine,
        info: &RequestInfo,
        query: &Query,
        object: &Value,
        request: Request<Body>,
    ) -> ApiResult<Response<Body>> {
        // The way is found before anything is awaited; what goes on then holds nothing of the engine.
        let way = match (info.resource.as_str(), info.subresource.as_str()) {
            ("pods", "log") => Way::Log(pod::log(engine, query, object)?),
            ("pods", "exec" | "attach") => {
                Way::Stream(pod::remote_command(engine, info, query, object, request.headers())?)
            }
            ("pods", "portforward") => Way::Stream(pod::port_forward(engine, object, request.headers())?),
            ("pods", "proxy") => Way::Backend(proxy::pod(info, object)?),
            ("services", "proxy") => Way::Backend(proxy::service(engine, info, object)?),
            ("nodes", "proxy") => Way::Node(proxy::node(engine, info)?),
            _ => return Ok(body::text(http::StatusCode::NOT_FOUND, "404 page not found\n")),
        };
        self.go(way, request).await
    }
}

/// Where a request goes on.
enum Way {
    Log(KubeletPath),
    Stream(KubeletPath),
    Backend(proxy::Backend),
    Node(Address),
}

/// A path of a kubelet's server, without the query.
struct KubeletPath {
    address: Address,
    path: String,
}

impl Kubelets {
    async fn go(&self, way: Way, request: Request<Body>) -> ApiResult<Response<Body>> {
        match way {
            Way::Log(to) => self.log(to, request).await,
            Way::Stream(to) => self.stream(to, request).await,
            Way::Backend(backend) => self.forward(backend, request).await,
            Way::Node(address) => self.proxy_node(address, request).await,
        }
    }

    async fn stream(&self, to: KubeletPath, request: Request<Body>) -> ApiResult<Response<Body>> {
        let (authority, stream) = self.dial_kubelet(to.address).await?;
        let query = request.uri().query().unwrap_or_default();
        let target = uri(&format!("https://{authority}{}?{query}", to.path))?;
        with_status(splice(request, &target, stream).await.map_err(Status::internal)?).await
    }

    async fn log(&self, to: KubeletPath, mut request: Request<Body>) -> ApiResult<Response<Body>> {
        if !websocket::is_websocket(request.headers()) {
            return self.stream(to, request).await;
        }
        let plain = Request::get(request.uri().clone()).body(body::empty()).map_err(Status::internal)?;
        let response = self.stream(to, plain).await?;
        tunnel::serve_body(&mut request, response.into_body()).map_err(|error| Status::bad_request(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubelet_that_is_being_started_is_waited_for() -> io::Result<()> {
        let reserved = tokio::net::TcpSocket::new_v4()?;
        reserved.bind(([127, 0, 0, 1], 0).into())?;
        let port = reserved.local_addr()?.port();
        let starting = async {
            tokio::time::sleep(REDIAL_EVERY * 4).await;
            reserved.listen(1)
        };
        let (dialed, listening) = tokio::join!(dial_starting("127.0.0.1", port), starting);
        drop(listening?);
        assert!(dialed.is_ok(), "{:?}", dialed.err().map(|status| status.message));
        Ok(())
    }
}

//! One attempt of a probe or hook: exec, HTTP, TCP or gRPC.

use crate::node::Node;
use crate::runtime::health::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, HTTPHeader, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Most bytes of an answer that are read.
const BODY_BYTES_MAX: usize = 10 << 10;
/// Redirects on the same host that are followed.
const REDIRECTS_MAX: usize = 10;

/// What an attempt found: success, or why not.
pub type Outcome = Result<String, String>;

/// The number behind a port that may be a name.
pub fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    };
    number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).ok_or_else(|| "invalid port".to_string())
}

/// Runs one probe attempt against a container.
pub async fn probe(node: &Node, container: &Container, id: &str, ip: &str, probe: &Probe, limit: Duration) -> Outcome {
    if let Some(action) = &probe.exec {
        return exec(node, id, action.command.clone().unwrap_or_default(), limit).await;
    }
    let attempt = async {
        if let Some(action) = &probe.http_get {
            http(container, ip, action, "kube-probe/1.36").await
        } else if let Some(action) = &probe.tcp_socket {
            let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip);
            let number = port(container, &action.port)?;
            tcp(host, number).await.map(|_| String::new())
        } else if let Some(action) = &probe.grpc {
            let number = u16::try_from(action.port).map_err(|_| "invalid port")?;
            grpc(ip, number, action.service.as_deref().unwrap_or_default()).await
        } else {
            Err("missing probe handler".to_string())
        }
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(match &probe.http_get {
            Some(action) => {
                let (scheme, host) =
                    (action.scheme.as_deref().unwrap_or("HTTP").to_lowercase(), action.host.as_deref().unwrap_or(ip));
                let number = port(container, &action.port).unwrap_or(0);
                let path = action.path.as_deref().unwrap_or("/");
                format!(
                    "Get \"{scheme}://{host}:{number}{path}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                )
            }
            None if probe.grpc.is_some() => {
                "timeout: health rpc did not complete within ".to_string() + &format!("{}s", limit.as_secs())
            }
            None => "dial tcp: i/o timeout".to_string(),
        }),
    }
}

/// Runs a command in a container.
pub async fn exec(node: &Node, id: &str, command: Vec<String>, limit: Duration) -> Outcome {
    match node.runtime.exec_sync(id, command, limit).await {
        Ok((code, out, err)) => {
            let text = format!("{}{}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
            if code == 0 { Ok(text) } else { Err(text.chars().take(BODY_BYTES_MAX).collect()) }
        }
        Err(status) if status.code() == tonic::Code::DeadlineExceeded => {
            Err(format!("command timed out after {}s", limit.as_secs()))
        }
        Err(status) => Err(format!("rpc error: code = {:?} desc = {}", status.code(), status.message())),
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, String> {
    let joined = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    TcpStream::connect(&joined).await.map_err(|e| {
        let cause = if e.kind() == std::io::ErrorKind::ConnectionRefused {
            "connect: connection refused".into()
        } else {
            e.to_string()
        };
        format!("dial tcp {joined}: {cause}")
    })
}

/// Asks over HTTP or HTTPS (any certificate); 200 to 399 is success.
pub async fn http(container: &Container, ip: &str, action: &HTTPGetAction, agent: &str) -> Outcome {
    let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip);
    let number = port(container, &action.port)?;
    let tls = action.scheme.as_deref() == Some("HTTPS");
    let scheme = if tls { "https" } else { "http" };
    let path = action.path.as_deref().unwrap_or("/");
    let mut path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
    let headers = action.http_headers.as_deref().unwrap_or_default();
    for _ in 0..REDIRECTS_MAX {
        let url = format!("{scheme}://{host}:{number}{path}");
        let fail = |cause: String| format!("Get \"{url}\": {cause}");
        let stream = tcp(host, number).await.map_err(fail)?;
        let (status, location, body) = if tls {
            let name = ServerName::try_from(host.to_string()).map_err(|e| fail(e.to_string()))?;
            let connector = tokio_rustls::TlsConnector::from(any_certificate());
            let stream = connector.connect(name, stream).await.map_err(|e| fail(e.to_string()))?;
            request(stream, host, number, &path, headers, agent).await
        } else {
            request(stream, host, number, &path, headers, agent).await
        }
        .map_err(fail)?;
        match status {
            300..400 => match same_host(&location, scheme, host, number) {
                Some(next) => path = next,
                None => return Ok("Probe terminated redirects".into()),
            },
            200..300 => return Ok(body),
            _ => return Err(format!("HTTP probe failed with statuscode: {status}")),
        }
    }
    Err(format!("Get \"{path}\": stopped after {REDIRECTS_MAX} redirects"))
}

fn same_host(location: &str, scheme: &str, host: &str, port: u16) -> Option<String> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(location.to_string());
    }
    let rest = location.strip_prefix(&format!("{scheme}://{host}:{port}"))?;
    Some(if rest.starts_with('/') { rest.to_string() } else { format!("/{rest}") })
}

async fn request(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    port: u16,
    path: &str,
    headers: &[HTTPHeader],
    agent: &str,
) -> Result<(u16, String, String), String> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let mut builder = http::Request::builder().uri(path);
    let given = |name: &str| headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
    let own_host = given("host").map(|h| h.value.clone()).unwrap_or_else(|| format!("{host}:{port}"));
    builder = builder.header("host", own_host).header("connection", "close");
    if given("user-agent").is_none() {
        builder = builder.header("user-agent", agent);
    }
    if given("accept").is_none() {
        builder = builder.header("accept", "*/*");
    }
    for header in headers.iter().filter(|h| !h.name.eq_ignore_ascii_case("host") && !h.value.is_empty()) {
        builder = builder.header(&header.name, &header.value);
    }
    let request = builder.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let reply = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = reply.status().as_u16();
    let location = reply.headers().get("location").and_then(|v| v.to_str().ok()).unwrap_or_default().to_string();
    let body = Limited::new(reply.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
    driver.abort();
    Ok((status, location, body))
}

async fn grpc(ip: &str, port: u16, service: &str) -> Outcome {
    let joined = if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{joined}")).map_err(|e| e.to_string())?;
    let channel = endpoint.connect().await;
    let channel = channel
        .map_err(|_| format!("timeout: failed to connect service \"{joined}\" within 1s: context deadline exceeded"))?;
    let request = HealthCheckRequest { service: service.to_string() };
    match HealthClient::new(channel).check(request).await {
        Ok(reply) => match reply.into_inner().status() {
            ServingStatus::Serving => Ok("service healthy".into()),
            other => Err(format!("service unhealthy (responded with \"{}\")", other.as_str_name())),
        },
        Err(status) => Err(format!("error: health rpc probe failed: {status}")),
    }
}

/// Probes do not verify certificates: they ask the pod whether it lives, not who it is.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn any_certificate() -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone());
    let builder =
        builder.with_protocol_versions(rustls::DEFAULT_VERSIONS).unwrap_or_else(|_| rustls::ClientConfig::builder());
    let config = builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
    Arc::new(config.with_no_client_auth())
}

//! A server outside of this one that is asked by HTTPS: a webhook by its URL or its Service.
//!
//! A Service is reached at one of its ready endpoints, so that the API server needs no service proxy on its machine.
//! An HTTP/2 connection is kept as long as its endpoint is one.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::seq::IndexedRandom;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cache::Cache;
use crate::kubelets::endpoints;
use crate::limits::WEBHOOK_ANSWER_BYTES_MAX;

/// Where distributions keep the authorities that everybody trusts.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

type Address = (String, u16);

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Url(Uri),
    Service { namespace: String, name: String, port: u16, path: String },
}

impl Place {
    /// The `url` or `service` of a `clientConfig`.
    ///
    /// # Errors
    /// Neither is there, or the URL is none.
    pub fn of_client_config(config: &Value) -> Result<Self, String> {
        if let Some(url) = config["url"].as_str() {
            return url.parse().map(Self::Url).map_err(|error| format!("{url:?} is no URL: {error}"));
        }
        let service = &config["service"];
        let text = |key: &str| service[key].as_str().unwrap_or_default().to_owned();
        if service.is_null() {
            return Err("webhook configuration must have either service or URL".to_owned());
        }
        let path = text("path");
        Ok(Self::Service {
            namespace: text("namespace"),
            name: text("name"),
            port: service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
            path: if path.is_empty() { "/".to_owned() } else { path },
        })
    }

    /// As errors show it, and as the Host header says it.
    fn authority(&self) -> String {
        match self {
            Self::Url(url) => url.authority().map(ToString::to_string).unwrap_or_default(),
            Self::Service { namespace, name, port, .. } => format!("{name}.{namespace}.svc:{port}"),
        }
    }

    fn path(&self) -> String {
        match self {
            Self::Url(url) => url.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            Self::Service { path, .. } => path.clone(),
        }
    }

    /// The name that the server's certificate must have.
    fn server_name(&self) -> String {
        match self {
            Self::Url(url) => url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
            Self::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }

    /// Addresses that may be dialed now.
    fn addresses(&self, cache: &Cache) -> Result<Vec<Address>, String> {
        match self {
            Self::Url(url) => Ok(vec![(self.server_name(), url.port_u16().unwrap_or(443))]),
            Self::Service { namespace, name, port, .. } => service_addresses(cache, namespace, name, *port),
        }
    }
}

/// The ready endpoints of a Service's port.
///
/// # Errors
/// The Service, its port or its endpoints are not there, in upstream's words.
pub fn service_addresses(cache: &Cache, namespace: &str, name: &str, port: u16) -> Result<Vec<Address>, String> {
    let service = cache.object("", "services", namespace, name);
    let service = service.and_then(|service| service.value().ok());
    let service = service.ok_or_else(|| format!("service {name:?} not found"))?;
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return Ok(vec![(spec["externalName"].as_str().unwrap_or_default().to_owned(), port)]);
    }
    let mut ports = spec["ports"].as_array().into_iter().flatten();
    let found = ports.find(|one| one["port"].as_u64() == Some(u64::from(port)));
    let found = found.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let found = endpoints(cache, namespace, name, found["name"].as_str().unwrap_or_default());
    if found.is_empty() { Err(format!("no endpoints available for service {name:?}")) } else { Ok(found) }
}

/// An HTTP/2 connection that is kept.
struct Kept {
    address: Address,
    sender: http2::SendRequest<Full<Bytes>>,
}

pub struct Backend {
    place: Place,
    tls: Arc<ClientConfig>,
    kept: Mutex<Option<Kept>>,
}

impl Backend {
    /// A server as the `clientConfig` of a webhook describes it.
    ///
    /// # Errors
    /// The description is not usable: its URL or its CA bundle cannot be read.
    pub fn of_client_config(config: &Value) -> Result<Self, String> {
        let bundle = config["caBundle"].as_str().unwrap_or_default();
        Self::new(Place::of_client_config(config)?, bundle)
    }

    /// A server and the base64 of the authorities that vouch for it; empty means those of the system.
    ///
    /// # Errors
    /// The bundle cannot be read.
    pub fn new(place: Place, bundle: &str) -> Result<Self, String> {
        let pem = match bundle {
            "" => system_roots()?,
            bundle => {
                let bytes = STANDARD.decode(bundle).map_err(|error| format!("caBundle: {error}"))?;
                String::from_utf8(bytes).map_err(|error| format!("caBundle: {error}"))?
            }
        };
        let tls = pki::tls::client_config(&pem, None).map_err(|error| error.to_string())?;
        Ok(Self { place, tls: Arc::new(tls), kept: Mutex::default() })
    }

    /// Sends a JSON document and answers the one that comes back.
    ///
    /// # Errors
    /// What went wrong, with the URL, in the words of Go's client.
    pub async fn post(&self, cache: &Cache, body: Vec<u8>, within: Duration) -> Result<Value, String> {
        let path = self.place.path();
        let sign = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{sign}timeout={}s", within.as_secs());
        let url = format!("https://{}{path}", self.place.authority());
        let answer = tokio::time::timeout(within, self.exchange(cache, &path, body.into())).await;
        let failed = |why: &str| format!("Post {url:?}: {why}");
        let (code, bytes) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Err(failed(&why)),
            Err(_) => return Err(failed("context deadline exceeded")),
        };
        if !(200..300).contains(&code) {
            return Err(refusal(code, &bytes));
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))
    }

    async fn exchange(&self, cache: &Cache, path: &str, body: Bytes) -> Result<(u16, Bytes), String> {
        let response = self.send(cache, path, body).await?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), WEBHOOK_ANSWER_BYTES_MAX).collect().await;
        Ok((code, body.map_err(|error| error.to_string())?.to_bytes()))
    }

    async fn send(&self, cache: &Cache, path: &str, body: Bytes) -> Result<Response<Incoming>, String> {
        let addresses = self.place.addresses(cache)?;
        if let Some(mut sender) = self.kept(&addresses) {
            let request = self.request(path, body.clone(), true)?;
            match sender.send_request(request).await {
                Ok(response) => return Ok(response),
                Err(error) => {
                    tracing::debug!(%error, "a kept connection to a webhook broke; opening another");
                    self.keep(None);
                }
            }
        }
        let address = addresses.choose(&mut rand::rng()).cloned().ok_or("no address")?;
        let stream = self.connect(&address).await?;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if is_h2 {
            let (mut sender, driver) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(text)?;
            tokio::spawn(async move { drop(driver.await) });
            self.keep(Some(Kept { address, sender: sender.clone() }));
            return sender.send_request(self.request(path, body, true)?).await.map_err(text);
        }
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        tokio::spawn(async move { drop(driver.await) });
        sender.send_request(self.request(path, body, false)?).await.map_err(text)
    }

    fn request(&self, path: &str, body: Bytes, whole_url: bool) -> Result<Request<Full<Bytes>>, String> {
        let authority = self.place.authority();
        let uri = if whole_url { format!("https://{authority}{path}") } else { path.to_owned() };
        let mut request =
            Request::post(uri).header(CONTENT_TYPE, "application/json").header(ACCEPT, "application/json");
        request = request.header(USER_AGENT, "kube-apiserver-admission");
        if !whole_url {
            request = request.header(HOST, authority);
        }
        request.body(Full::new(body)).map_err(text)
    }

    fn kept(&self, addresses: &[Address]) -> Option<http2::SendRequest<Full<Bytes>>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |kept: &Kept| addresses.contains(&kept.address) && !kept.sender.is_closed();
        if !kept.as_ref().is_some_and(fits) {
            *kept = None;
        }
        kept.as_ref().map(|kept| kept.sender.clone())
    }

    fn keep(&self, new: Option<Kept>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = new;
    }

    async fn connect(&self, (host, port): &Address) -> Result<TlsStream<TcpStream>, String> {
        let stream = TcpStream::connect((host.as_str(), *port)).await;
        let stream = stream.map_err(|error| format!("dial tcp {host}:{port}: {}", connect_error(&error)))?;
        let _ = stream.set_nodelay(true);
        let name = self.place.server_name();
        let name = match name.parse::<IpAddr>() {
            Ok(ip) => ServerName::from(ip),
            Err(_) => ServerName::try_from(name).map_err(text)?,
        };
        let tls = TlsConnector::from(self.tls.clone()).connect(name, stream).await;
        tls.map_err(|error| format!("tls: failed to verify certificate: {error}"))
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Go's words for what a connection may fail with.
pub fn connect_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

/// What an answer other than 2xx is called.
fn refusal(code: u16, body: &[u8]) -> String {
    let status = serde_json::from_slice::<Value>(body).ok().filter(|value| value["kind"] == "Status");
    if let Some(message) = status.as_ref().and_then(|status| status["message"].as_str()) {
        return message.to_owned();
    }
    match code {
        404 => "the server could not find the requested resource".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => "the server does not allow access to the requested resource".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        500.. => {
            let body = String::from_utf8_lossy(body);
            format!("an error on the server ({:?}) has prevented the request from succeeding", body.trim())
        }
        _ => "the server rejected our request for an unknown reason".to_owned(),
    }
}

pub fn system_roots() -> Result<String, String> {
    let found = SYSTEM_ROOTS.iter().find_map(|path| std::fs::read_to_string(path).ok());
    found.ok_or_else(|| "there is no caBundle, and this machine has no certificate authorities of its own".to_owned())
}

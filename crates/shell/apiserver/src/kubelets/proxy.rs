//! The proxy subresource of pods, services and nodes.

use std::sync::Arc;

use http::header::{HOST, LOCATION};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use meta::{ApiResult, GroupResource, Status};
use rand::seq::IndexedRandom;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::Value;
use streams::splice;

use super::links::Links;
use super::page;
use super::{Address, Kubelets, authority, dial, kubelet_address, unavailable, unreachable, uri};
use crate::body::{self, Body};
use crate::cache::Cache;
use crate::engine::Engine;
use crate::info::RequestInfo;

const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// `[SCHEME:]NAME[:PORT]`, as the name in a proxy path.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Target<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [name] => Some(Self { https: false, name, port: "" }),
            [name, port] => Some(Self { https: false, name, port }),
            [scheme @ ("" | "http" | "https"), name, port] => Some(Self { https: *scheme == "https", name, port }),
            _ => None,
        }
    }
}

/// The object's own name in a proxy path's name.
pub fn target_name(text: &str) -> &str {
    Target::parse(text).map_or(text, |target| target.name)
}

fn target(info: &RequestInfo) -> ApiResult<Target<'_>> {
    Target::parse(&info.name).ok_or_else(|| Status::bad_request(format!("invalid proxy name {:?}", info.name)))
}

/// A request's path as it was sent, cut behind the subresource: the place of the proxy, and what lies behind it.
fn cut(path: &str) -> (&str, &str) {
    // Empty, `api`, `v1`, `namespaces`, namespace, resource, name, `proxy`; nodes are in no namespace.
    let before = if path.starts_with("/api/v1/namespaces/") { 8 } else { 6 };
    path.match_indices('/').nth(before - 1).map_or((path, ""), |(at, _)| path.split_at(at))
}

/// What the host behind the proxy is asked for. A GET of the bare subresource is sent to its directory first, so that
/// relative links of the page behind it work.
fn rest(request: &Request<Body>) -> Result<String, Box<Response<Body>>> {
    let path = request.uri().path();
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let (_, after) = cut(path);
    if after.is_empty() && matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        if let Ok(location) = HeaderValue::from_str(&format!("{path}/{query}")) {
            response.headers_mut().insert(LOCATION, location);
        }
        return Err(Box::new(response));
    }
    Ok(format!("{}{query}", if after.is_empty() { "/" } else { after }))
}

/// Sends a request on, says by which path it came, and leads the links of the answer back through the proxy.
async fn pass(
    mut request: Request<Body>,
    target: &Uri,
    connection: impl streams::Connection,
) -> Result<Response<Body>, streams::StreamError> {
    let path = request.uri().path().to_owned();
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(Authority::as_str));
    let hosts = target.authority().map(Authority::as_str).into_iter().chain(host).map(str::to_owned).collect();
    let links = Links { prefix: cut(&path).0.to_owned(), hosts };
    if let Ok(path) = HeaderValue::from_str(&path) {
        request.headers_mut().insert("x-forwarded-uri", path);
    }
    Ok(page::rewrite(splice(request, target, connection).await?, links))
}

/// Where a proxied request goes.
#[derive(Debug)]
pub(super) struct Backend {
    https: bool,
    host: String,
    port: u16,
}

/// A pod by its address, at the port named or the first that it declares.
pub(super) fn pod(info: &RequestInfo, pod: &Value) -> ApiResult<Backend> {
    let target = target(info)?;
    let ip = pod["status"]["podIP"].as_str().filter(|ip| !ip.is_empty());
    let ip = ip.ok_or_else(|| Status::bad_request("address not allowed: the pod has no address yet"))?;
    let first_port = || {
        let containers = pod["spec"]["containers"].as_array()?;
        containers.iter().find_map(|c| c["ports"].as_array()?.first()?["containerPort"].as_u64())
    };
    let port = match target.port {
        "" => first_port().unwrap_or(if target.https { 443 } else { 80 }) as u16,
        number => number.parse().map_err(|_| Status::bad_request(format!("invalid port {number:?}")))?,
    };
    Ok(Backend { https: target.https, host: ip.to_owned(), port })
}

/// A node's kubelet.
pub(super) fn node(engine: &Engine, info: &RequestInfo) -> ApiResult<Address> {
    kubelet_address(engine, target(info)?.name)
}

impl Kubelets {
    pub(super) async fn proxy_node(&self, address: Address, request: Request<Body>) -> ApiResult<Response<Body>> {
        let rest = match rest(&request) {
            Ok(rest) => rest,
            Err(redirect) => return Ok(*redirect),
        };
        let (authority, stream) = self.dial_kubelet(address).await?;
        pass(request, &uri(&format!("https://{authority}{rest}"))?, stream).await.map_err(Status::internal)
    }

    pub(super) async fn forward(&self, backend: Backend, request: Request<Body>) -> ApiResult<Response<Body>> {
        let rest = match rest(&request) {
            Ok(rest) => rest,
            Err(redirect) => return Ok(*redirect),
        };
        let Backend { https, host, port } = backend;
        let stream = dial(&host, port).await.map_err(|status| unavailable(status.message))?;
        let target = uri(&format!("http://{}{rest}", authority(&host, port)))?;
        if !https {
            return pass(request, &target, stream).await.map_err(|error| unavailable(error.to_string()));
        }
        let name = ServerName::try_from(host.clone()).map_err(Status::internal)?;
        let stream =
            self.unverified_tls.connect(name, stream).await.map_err(|error| unreachable(&host, port, &error))?;
        pass(request, &target, stream).await.map_err(|error| unavailable(error.to_string()))
    }
}

/// One of the Service's ready addresses, by chance, for the port that the path names.
pub(super) fn service(engine: &Engine, info: &RequestInfo, service: &Value) -> ApiResult<Backend> {
    let target = target(info)?;
    let name = target.name;
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let by_name = |port: &&Value| {
        port["name"] == target.port || port["port"].as_u64().is_some_and(|n| n.to_string() == target.port)
    };
    let port = match (target.port, ports) {
        ("", [only]) => Some(only),
        ("", _) => ports.iter().find(|port| port["name"].as_str().unwrap_or_default().is_empty()),
        _ => ports.iter().find(by_name),
    };
    let port =
        port.ok_or_else(|| unavailable(format!("no service port {:?} found for service {name:?}", target.port)))?;
    let endpoints = endpoints(&engine.cache, &info.namespace, name, port["name"].as_str().unwrap_or_default());
    let chosen = endpoints.choose(&mut rand::rng()).cloned();
    let (host, port) = chosen.ok_or_else(|| unavailable(format!("no endpoints available for service {name:?}")))?;
    Ok(Backend { https: target.https, host, port })
}

/// Ready addresses of a Service's port, with the port they listen on.
pub(crate) fn endpoints(cache: &Cache, namespace: &str, service: &str, port_name: &str) -> Vec<(String, u16)> {
    let mut found = Vec::new();
    let prefix = format!("{namespace}/");
    let slices = GroupResource::new("discovery.k8s.io", "endpointslices");
    let slices = cache.resource(&slices).snapshot(cache.reached()).objects;
    for (_, slice) in slices.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        let Ok(slice) = serde_json::from_slice::<Value>(&slice.bytes) else { continue };
        if slice["metadata"]["labels"][SERVICE_LABEL] != service {
            continue;
        }
        let ports = slice["ports"].as_array().into_iter().flatten();
        let Some(port) =
            ports.filter(|p| p["name"].as_str().unwrap_or_default() == port_name).find_map(|p| p["port"].as_u64())
        else {
            continue;
        };
        for endpoint in
            slice["endpoints"].as_array().into_iter().flatten().filter(|e| e["conditions"]["ready"] != false)
        {
            let addresses = endpoint["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
            found.extend(addresses.map(|address| (address.to_owned(), port as u16)));
        }
    }
    found
}

/// The same client without checking who answers: a pod's certificate is signed by nobody we know.
pub(super) fn unverified(like: &ClientConfig) -> Result<ClientConfig, rustls::Error> {
    let provider = like.crypto_provider().clone();
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth())
}

/// The same, still showing its own certificate.
pub(crate) fn unverified_like(like: &ClientConfig) -> ClientConfig {
    let mut config = like.clone();
    let provider = like.crypto_provider().clone();
    config.dangerous().set_certificate_verifier(Arc::new(Anyone(provider)));
    config
}

/// Accepts every certificate; signatures are still checked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
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
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_found_by_its_place() {
        let cases = [
            ("/api/v1/namespaces/proxy-1/pods/proxy/proxy", "", "/"),
            ("/api/v1/namespaces/a/services/https:b:c/proxy/x/proxy/", "/x/proxy/", "/x/proxy/"),
            ("/api/v1/nodes/proxy/proxy/logs", "/logs", "/logs"),
        ];
        for (path, after, asked) in cases {
            assert_eq!(cut(path).1, after, "{path}");
            let request = |method: Method| {
                let request = Request::builder().method(method).uri(format!("{path}?a=b"));
                request.body(body::empty()).unwrap()
            };
            assert_eq!(rest(&request(Method::PUT)).unwrap(), format!("{asked}?a=b"));
            let redirect = rest(&request(Method::GET)).err().map(|answer| answer.headers()[LOCATION].clone());
            assert_eq!(redirect.is_some(), after.is_empty(), "{path}");
            assert!(redirect.is_none_or(|location| location == format!("{path}/?a=b").as_str()));
        }
    }

    #[test]
    fn names_may_carry_scheme_and_port() {
        let parse = |text| Target::parse(text).map(|t| format!("{} {} {}", t.https, t.name, t.port));
        assert_eq!(parse("a").as_deref(), Some("false a "));
        assert_eq!(parse("a:80").as_deref(), Some("false a 80"));
        assert_eq!(parse("https:a:web").as_deref(), Some("true a web"));
        assert_eq!(parse("ftp:a:1"), None);
    }
}

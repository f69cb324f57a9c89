//! API servers behind this one: requests for a group and version that an APIService gives to a Service go there.
//!
//! The user is told by headers, over TLS with the front-proxy client certificate that extension servers trust.

mod follow;

use std::sync::Arc;

use access::User;
use arc_swap::ArcSwap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use meta::ApiResult;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use pki::Credential;
use rand::seq::IndexedRandom;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use streams::splice;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::backend::{connect_error, service_addresses, system_roots};
use crate::body::{self, Body};
use crate::cache::Cache;
use crate::engine::Engine;

pub use follow::{local_services, start};

/// Headers that tell extension servers who asks. Nobody else may set them.
const REMOTE: &str = "x-remote-";
/// What may not stand in the name of a header.
const KEY: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'(')
    .add(b')')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'{')
    .add(b'}')
    .add(b'%');

/// A group and version that another server serves.
pub struct Extension {
    pub group: String,
    pub version: String,
    /// How the APIService describes the server; a change makes a new extension.
    spec: Value,
    namespace: String,
    service: String,
    port: u16,
    tls: Result<TlsConnector, String>,
    /// Of the group and of the version: higher comes first.
    pub priority: (i64, i64),
    pub available: bool,
    /// What it serves, as its own discovery lists it.
    pub resources: Vec<Value>,
}

impl Extension {
    fn new(spec: &Value, front_proxy: Option<&Credential>) -> Self {
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let service = &spec["service"];
        Self {
            group: text(spec, "group"),
            version: text(spec, "version"),
            spec: spec.clone(),
            namespace: text(service, "namespace"),
            service: text(service, "name"),
            port: service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
            tls: connector(spec, front_proxy),
            priority: (
                spec["groupPriorityMinimum"].as_i64().unwrap_or_default(),
                spec["versionPriority"].as_i64().unwrap_or_default(),
            ),
            available: false,
            resources: Vec::new(),
        }
    }

    fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// A connection to one of the server's endpoints.
    async fn connect(&self, cache: &Cache) -> Result<TlsStream<TcpStream>, String> {
        let tls = self.tls.as_ref().map_err(Clone::clone)?;
        let addresses = service_addresses(cache, &self.namespace, &self.service, self.port)?;
        let (host, port) = addresses.choose(&mut rand::rng()).cloned().ok_or("no address")?;
        let stream = TcpStream::connect((host.as_str(), port)).await;
        let stream = stream.map_err(|error| format!("dial tcp {host}:{port}: {}", connect_error(&error)))?;
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(self.host()).map_err(|error| error.to_string())?;
        tls.connect(name, stream).await.map_err(|error| format!("tls: {error}"))
    }
}

fn connector(spec: &Value, front_proxy: Option<&Credential>) -> Result<TlsConnector, String> {
    use base64::Engine as _;
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let pem = match spec["caBundle"].as_str().unwrap_or_default() {
        "" => system_roots()?,
        bundle => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(bundle).map_err(|error| text(&error))?;
            String::from_utf8(bytes).map_err(|error| text(&error))?
        }
    };
    let mut tls = pki::tls::client_config(&pem, front_proxy).map_err(|error| text(&error))?;
    if spec["insecureSkipTLSVerify"] == true {
        tls = crate::kubelets::unverified_like(&tls);
    }
    // Upgrades exist in HTTP/1.1 only.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tls: Arc<ClientConfig> = Arc::new(tls);
    Ok(TlsConnector::from(tls))
}

/// Every extension that is known now.
#[derive(Default)]
pub struct Aggregation {
    extensions: ArcSwap<Vec<Arc<Extension>>>,
}

impl Aggregation {
    pub fn all(&self) -> Arc<Vec<Arc<Extension>>> {
        self.extensions.load_full()
    }

    fn set(&self, all: Vec<Arc<Extension>>) {
        self.extensions.store(Arc::new(all));
    }

    /// Who serves a path, if it is not this server.
    pub fn find(&self, path: &str) -> Option<Arc<Extension>> {
        let all = self.extensions.load();
        if all.is_empty() {
            return None;
        }
        let mut parts = path.trim_start_matches('/').split('/');
        let (root, group, version) = (parts.next()?, parts.next()?, parts.next()?);
        let fits = |one: &&Arc<Extension>| root == "apis" && one.group == group && one.version == version;
        all.iter().find(fits).cloned()
    }
}

/// Hands a request over to the server of its group and version.
pub async fn proxy(
    engine: &Engine,
    extension: &Extension,
    user: &User,
    mut request: Request<Body>,
) -> ApiResult<Response<Body>> {
    let unavailable = || body::text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n");
    if !extension.available {
        return Ok(unavailable());
    }
    set_user(request.headers_mut(), user);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let Ok(target) = format!("https://{}{path}", extension.host()).parse::<Uri>() else { return Ok(unavailable()) };
    let stream = match extension.connect(&engine.cache).await {
        Ok(stream) => stream,
        Err(why) => {
            tracing::debug!(group = extension.group, version = extension.version, why, "an API server is unreachable");
            return Ok(unavailable());
        }
    };
    match splice(request, &target, stream).await {
        Ok(response) => Ok(response),
        Err(error) => {
            Ok(body::text(StatusCode::SERVICE_UNAVAILABLE, format!("error trying to reach service: {error}\n")))
        }
    }
}

/// Says who asks, and nothing that the client said about it itself.
fn set_user(headers: &mut HeaderMap, user: &User) {
    let forged: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(REMOTE)).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
    headers.remove(AUTHORIZATION);
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid);
    }
    for group in &user.groups {
        add("x-remote-group", group);
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", utf8_percent_encode(&key.to_ascii_lowercase(), KEY));
        for value in values {
            add(&name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_says_who_they_are_but_the_server() {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("forged"));
        headers.insert("x-remote-extra-scopes", HeaderValue::from_static("all"));
        let mut user =
            User { name: "jane".to_owned(), groups: vec!["a".to_owned(), "b".to_owned()], ..User::default() };
        user.extra.insert("example.org/Key".to_owned(), vec!["v".to_owned()]);
        set_user(&mut headers, &user);
        let mut shown: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        shown.sort();
        assert_eq!(
            shown.join(" "),
            "x-remote-extra-example.org%2fkey=v x-remote-group=a x-remote-group=b x-remote-user=jane"
        );
    }
}

//! The paths of the kubelet's server, as upstream's API server and tools know them.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use streams::remote_command::{self, Streams};
use streams::splice::wants_upgrade;
use streams::{AnyBody, StreamError, full, incoming, splice, tunnel, websocket};
use tokio::net::TcpStream;

use super::{ContainerTarget, DiskRequest, DiskWork, Document, LogQuery, LookupError, NodeView, logs, machine_logs};

/// Longest wait that a caller of `/tug/withdrawn` may ask for.
const WITHDRAWN_WAIT_MAX: Duration = Duration::from_secs(10);
const DISK_REQUEST_BYTES_MAX: usize = 4096;
const COMMAND_WORDS_MAX: usize = 4096;
const ADDRESSES_MAX: usize = 16;

/// Who calls, by certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    pub name: String,
    pub groups: Vec<String>,
}

impl Caller {
    fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The API server (and administrators) may everything; nodes may ask each other what their rules hold.
    fn may(&self, path: &str) -> bool {
        self.is_in("system:masters") || (self.is_in("system:nodes") && path == "/tug/withdrawn")
    }
}

/// An answer that is no success: a code and one sentence.
#[derive(Debug)]
pub struct Refusal(pub StatusCode, pub String);

impl From<StreamError> for Refusal {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::NoUpgrade => Self(
                StatusCode::BAD_REQUEST,
                "unable to upgrade: the request offers no protocol served here".to_owned(),
            ),
            error => Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
    }
}

type Answer = Result<Response<AnyBody>, Refusal>;

pub async fn answer(node: Arc<dyn NodeView>, caller: Option<Caller>, request: Request<Incoming>) -> Response<AnyBody> {
    let path = request.uri().path().to_owned();
    let outcome = match caller {
        _ if path == "/healthz" => Ok(Response::new(full("ok"))),
        None => Err(Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned())),
        Some(caller) if !caller.may(&path) => {
            Err(Refusal(StatusCode::FORBIDDEN, format!("Forbidden (user={}, path={path})", caller.name)))
        }
        Some(_) => route(node, &path, request).await,
    };
    outcome.unwrap_or_else(|Refusal(code, message)| {
        let mut response = Response::new(full(message));
        *response.status_mut() = code;
        response
    })
}

async fn route(node: Arc<dyn NodeView>, path: &str, request: Request<Incoming>) -> Answer {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (parts.as_slice(), request.method()) {
        (["containerLogs", namespace, pod, container], &Method::GET) => {
            container_logs(node, &request, namespace, pod, container).await
        }
        (["exec", namespace, pod, container], _) | (["exec", namespace, pod, _, container], _) => {
            let target = running(&*node, namespace, pod, container).await?;
            let query = query(&request);
            let streams = streams_of(&query);
            let command: Vec<String> = all(&query, "command").take(COMMAND_WORDS_MAX).map(str::to_owned).collect();
            let url = node.exec_url(&target, &command, streams).await?;
            remote(request, streams, &url).await
        }
        (["attach", namespace, pod, container], _) | (["attach", namespace, pod, _, container], _) => {
            let target = running(&*node, namespace, pod, container).await?;
            let streams = streams_of(&query(&request));
            let url = node.attach_url(&target, streams).await?;
            remote(request, streams, &url).await
        }
        (["portForward", namespace, pod], _) | (["portForward", namespace, pod, _], _) => {
            port_forward(node, request, namespace, pod).await
        }
        (["tug", "disks", disk], &Method::POST | &Method::PUT | &Method::DELETE) => {
            disks(node, (*disk).to_owned(), request).await
        }
        (["tug", "withdrawn"], &Method::GET) => withdrawn(node, &request).await,
        (["logs", ..], &Method::GET) => {
            machine_logs::answer(Path::new(machine_logs::LOG_DIR), path.strip_prefix("/logs").unwrap_or(path)).await
        }
        _ => match node.document(path, &query(&request)).await {
            Some(Document::Json(value)) => Ok(json(&value)),
            Some(Document::Metrics(text)) => Ok(metrics(text)),
            None => Err(Refusal(StatusCode::NOT_FOUND, "404 page not found".to_owned())),
        },
    }
}

/// Makes, grows or removes a disk of the node.
async fn disks(node: Arc<dyn NodeView>, disk: String, request: Request<Incoming>) -> Answer {
    let method = request.method().clone();
    let body = Limited::new(request.into_body(), DISK_REQUEST_BYTES_MAX).collect().await;
    let body = body.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?.to_bytes();
    let asked: DiskRequest = if method == Method::DELETE {
        DiskRequest::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?
    };
    let work = match method {
        Method::POST => DiskWork::Create { bytes: asked.bytes, block: asked.block },
        Method::PUT => DiskWork::Grow { bytes: asked.bytes },
        _ => DiskWork::Remove,
    };
    Ok(json(&node.disk(&disk, work).await?))
}

fn json(value: &serde_json::Value) -> Response<AnyBody> {
    let mut response = Response::new(full(value.to_string()));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn metrics(text: String) -> Response<AnyBody> {
    let mut response = Response::new(full(text));
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

type Query = Vec<(String, String)>;

fn query<B>(request: &Request<B>) -> Query {
    form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect()
}

fn all<'a>(query: &'a Query, name: &'a str) -> impl Iterator<Item = &'a str> {
    query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn flag(query: &Query, names: [&str; 2]) -> bool {
    names.iter().any(|name| all(query, name).any(|value| matches!(value, "1" | "true")))
}

/// Both spellings: the kubelet's own (`input=1`) and the pod subresource's (`stdin=true`).
fn streams_of(query: &Query) -> Streams {
    Streams {
        stdin: flag(query, ["input", "stdin"]),
        stdout: flag(query, ["output", "stdout"]),
        stderr: flag(query, ["error", "stderr"]),
        tty: flag(query, ["tty", "tty"]),
    }
}

fn lookup_failed(error: LookupError, namespace: &str, pod: &str, container: &str) -> Refusal {
    let message = match error {
        LookupError::NoPod => format!("pod \"{pod}_{namespace}\" does not exist"),
        LookupError::NoContainer => format!("container {container:?} in pod {pod:?} is not available"),
    };
    Refusal(StatusCode::NOT_FOUND, message)
}

async fn running(node: &dyn NodeView, namespace: &str, pod: &str, container: &str) -> Result<String, Refusal> {
    let target = node
        .container(namespace, pod, container)
        .await
        .map_err(|error| lookup_failed(error, namespace, pod, container))?;
    match target {
        ContainerTarget { id: Some(id), running: true, .. } => Ok(id),
        _ => Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found (\"{container}\")"))),
    }
}

async fn container_logs(
    node: Arc<dyn NodeView>,
    request: &Request<Incoming>,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Answer {
    let bad = |message: String| Refusal(StatusCode::BAD_REQUEST, message);
    let wanted = LogQuery::parse(&query(request)).map_err(bad)?;
    let target = node
        .container(namespace, pod, container)
        .await
        .map_err(|error| lookup_failed(error, namespace, pod, container))?;
    let path = if wanted.previous {
        let none = || bad(format!("previous terminated container {container:?} in pod {pod:?} not found"));
        target.previous_log.clone().ok_or_else(none)?
    } else {
        let reason = target.waiting_reason.clone().unwrap_or_else(|| "ContainerCreating".to_owned());
        let none = || bad(format!("container {container:?} in pod {pod:?} is waiting to start: {reason}"));
        target.log.clone().ok_or_else(none)?
    };
    let follow = (wanted.follow && !wanted.previous).then(|| target.id.clone()).flatten();
    let body = logs::stream(path, wanted, follow, node)
        .await
        .map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Connects to the runtime's streaming server by the URL that it gave out.
async fn dial(url: &str) -> Result<(Uri, TcpStream), Refusal> {
    let uri: Uri = url.parse().map_err(|_| {
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("the runtime answered a broken URL {url:?}"))
    })?;
    let host = uri.host().unwrap_or("127.0.0.1").to_owned();
    let port = uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| {
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot reach the runtime's streams: {error}"))
    })?;
    let _ = stream.set_nodelay(true);
    Ok((uri, stream))
}

async fn remote(request: Request<Incoming>, streams: Streams, url: &str) -> Answer {
    let (uri, stream) = dial(url).await?;
    if websocket::is_websocket(request.headers()) {
        return Ok(remote_command::serve(request, streams, &uri, stream).await?);
    }
    upgraded(request, &uri, stream).await
}

async fn port_forward(node: Arc<dyn NodeView>, request: Request<Incoming>, namespace: &str, pod: &str) -> Answer {
    let sandbox = node.sandbox(namespace, pod).await.map_err(|error| lookup_failed(error, namespace, pod, ""))?;
    let query = query(&request);
    let ports: Vec<u16> = all(&query, "port")
        .chain(all(&query, "ports"))
        .flat_map(|list| list.split(','))
        .filter_map(|p| p.parse().ok())
        .collect();
    let url = node.port_forward_url(&sandbox, &ports).await?;
    let (uri, stream) = dial(&url).await?;
    if websocket::offered(request.headers()).iter().any(|name| name == tunnel::SPDY_IN_WEBSOCKET) {
        return Ok(tunnel::serve(request, &uri, stream).await?);
    }
    upgraded(request, &uri, stream).await
}

/// The runtime speaks what the client speaks: pass it on.
async fn upgraded(request: Request<Incoming>, uri: &Uri, stream: TcpStream) -> Answer {
    if !wants_upgrade(request.headers()) {
        return Err(Refusal(StatusCode::BAD_REQUEST, "Upgrade request required".to_owned()));
    }
    Ok(splice(request.map(incoming), uri, stream).await?)
}

async fn withdrawn(node: Arc<dyn NodeView>, request: &Request<Incoming>) -> Answer {
    let query = query(request);
    let addresses: Vec<IpAddr> = all(&query, "ip").take(ADDRESSES_MAX).filter_map(|ip| ip.parse().ok()).collect();
    let wait = all(&query, "ms").next().and_then(|ms| ms.parse().ok()).map_or(Duration::ZERO, Duration::from_millis);
    let gone = node.withdrawn(&addresses, wait.min(WITHDRAWN_WAIT_MAX)).await;
    Ok(json(&serde_json::json!({ "withdrawn": gone })))
}

//! One request: its route, its backend, its answer.

use std::error::Error as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request};
use http_body::Body as _;
use hyper::body::Incoming;
use routes::filter::{RedirectFrom, Rewrite};
use routes::table::{Action, Asked, Backend, Route, Table};
use routes::view::Protocol;
use routes::{host, path};
use tokio::time::Instant;

use crate::answers;
use crate::body::{Body, BodyError};
use crate::connection::Client;
use crate::forward::{self, Origin};
use crate::limits::ATTEMPTS_MAX;
use crate::pool::{self, BackendError, Lease, Pool};
use crate::serving::Live;
use crate::tunnel;
use crate::wire::{self, Home, Text};
use crate::worker::Worker;

/// Answers a request, whatever happens.
pub async fn handle(worker: &Rc<Worker>, client: &Client, request: Request<Incoming>) -> Response<Body> {
    let began = Instant::now();
    let live = worker.shared.serving.live();
    let line = live.settings.access_log.then(|| describe(client, &request));
    let answer = route(worker, client, &live, request).await;
    // From here on the request has nothing to do with the table any more.
    drop(live);
    let took = began.elapsed();
    worker.shared.metrics.answered(answer.status().as_u16(), took);
    if let Some(line) = line {
        let now = jiff::Timestamp::now();
        worker.shared.log.line(format!("{now:.3} {line} {} {:.6}", answer.status().as_u16(), took.as_secs_f64()));
    }
    answer
}

/// Client, method, host, path and version. Control characters cannot be in any of them.
fn describe(client: &Client, request: &Request<Incoming>) -> String {
    let scheme = if client.tls { "https" } else { "http" };
    let host = host_of(request.uri(), request.headers()).unwrap_or("-");
    format!("{} {} {scheme}://{host}{} {:?}", client.ip, request.method(), request.uri().path(), request.version())
}

fn host_of<'a>(uri: &'a Uri, headers: &'a http::HeaderMap) -> Option<&'a str> {
    match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(header::HOST)?.to_str().ok(),
    }
}

async fn route(worker: &Rc<Worker>, client: &Client, live: &Live, request: Request<Incoming>) -> Response<Body> {
    if request.method() == Method::CONNECT {
        return answers::plain(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served");
    }
    let Some(raw_host) = host_of(request.uri(), request.headers()).filter(|_| one_host(request.headers())) else {
        if request.version() < Version::HTTP_11 && !request.headers().contains_key(header::HOST) {
            return dispatch(worker, client, live, "", request).await;
        }
        return answers::plain(StatusCode::BAD_REQUEST, "one Host is needed");
    };
    let raw_host = raw_host.to_owned();
    dispatch(worker, client, live, &raw_host, request).await
}

fn one_host(headers: &http::HeaderMap) -> bool {
    headers.get_all(header::HOST).iter().nth(1).is_none()
}

async fn dispatch(
    worker: &Rc<Worker>,
    client: &Client,
    live: &Live,
    raw_host: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let host = host::normalize(raw_host);
    let Some(route) = find(&live.table, client, &host, &request) else { return answers::not_found() };
    let action = &route.action;
    let tls = client.tls || (client.trusted && forward::was_https(request.headers()));
    if let Some(answer) = redirect(live, client, tls, &host, route, &request) {
        return answer;
    }
    let Some(weighted) = action.choose(worker.draw()) else {
        return answers::plain(StatusCode::INTERNAL_SERVER_ERROR, "the route has no backend");
    };
    if let Some(why) = weighted.backend.unusable {
        let status = StatusCode::from_u16(action.unusable_status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        return answers::plain(status, why.message());
    }
    let max = action.limits.body_bytes_max;
    if max > 0 && request.body().size_hint().lower() > max {
        return answers::too_large();
    }
    let origin = Origin { client, tls, host: raw_host };
    let (mut parts, incoming) = request.into_parts();
    let is_upgrade = parts.version == Version::HTTP_11 && forward::is_upgrade(&parts.headers);
    let waiting = is_upgrade.then(|| parts.extensions.remove::<hyper::upgrade::OnUpgrade>()).flatten();
    forward::strip(&mut parts.headers, waiting.is_some());
    forward::tell(&mut parts.headers, &origin);
    parts.headers.remove(header::EXPECT);
    action.filters.request.apply(&mut parts.headers);
    weighted.filters.request.apply(&mut parts.headers);
    let rewrite = weighted.filters.rewrite.as_ref().or(action.filters.rewrite.as_ref());
    if let Err(text) = aim(&mut parts, raw_host, rewrite, route, weighted.backend.protocol) {
        return answers::plain(StatusCode::BAD_REQUEST, text);
    }
    let outgoing = Outgoing { parts, body: Body::through(incoming, max), upgrade: waiting.is_some() };
    let sent = exchange(worker, action, &weighted.backend, outgoing);
    let outcome = match action.limits.whole {
        None => sent.await,
        Some(limit) => match tokio::time::timeout(limit, sent).await {
            Ok(outcome) => outcome,
            Err(_) => Err(answers::plain(StatusCode::GATEWAY_TIMEOUT, "the request took longer than its route allows")),
        },
    };
    let mut answer = match outcome {
        Ok(Answered::Direct(mut answer)) => {
            forward::strip(answer.headers_mut(), false);
            answer
        }
        Ok(Answered::Streamed(answer, lease)) => finish(answer, lease, waiting),
        Err(answer) => return answer,
    };
    action.filters.response.apply(answer.headers_mut());
    weighted.filters.response.apply(answer.headers_mut());
    answer
}

fn find<'t>(table: &'t Table, client: &Client, host: &str, request: &Request<Incoming>) -> Option<&'t Route> {
    let path = path::normalize(request.uri().path());
    table.find(&Asked {
        port: client.port,
        host,
        path: &path,
        query: request.uri().query(),
        method: request.method(),
        headers: request.headers(),
    })
}

/// Where a route sends the client away.
fn redirect(
    live: &Live,
    client: &Client,
    tls: bool,
    host: &str,
    route: &Route,
    request: &Request<Incoming>,
) -> Option<Response<Body>> {
    let (path, query) = (request.uri().path(), request.uri().query());
    if route.action.ssl_redirect && !tls && live.table.ports.contains_key(&live.table.https_port) {
        let port = if live.table.https_port == 443 { String::new() } else { format!(":{}", live.table.https_port) };
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        return Some(answers::redirect(StatusCode::PERMANENT_REDIRECT, &format!("https://{host}{port}{path}{query}")));
    }
    let redirect = route.action.filters.redirect.as_ref()?;
    let scheme = if tls { "https" } else { "http" };
    let matched = &route.condition.path;
    let location = redirect.location(&RedirectFrom { scheme, host, port: client.port, path, query, matched });
    let status = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::FOUND);
    Some(answers::redirect(status, &location))
}

/// Writes the target of the request to the backend: path, host and version.
fn aim(
    parts: &mut request::Parts,
    raw_host: &str,
    rewrite: Option<&Rewrite>,
    route: &Route,
    protocol: Protocol,
) -> Result<(), &'static str> {
    let host = rewrite.and_then(|rewrite| rewrite.host.as_deref()).unwrap_or(raw_host);
    let mut target = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    if let Some(edit) = rewrite.and_then(|rewrite| rewrite.path.as_ref()) {
        let mut text = edit.apply(target.path(), &route.condition.path);
        if let Some(query) = target.query() {
            text.push('?');
            text.push_str(query);
        }
        target = PathAndQuery::try_from(text).map_err(|_| "the rewritten path is none")?;
    }
    match protocol {
        Protocol::Http1 => {
            parts.version = Version::HTTP_11;
            if parts.uri.authority().is_some() || rewrite.is_some() {
                parts.uri = Uri::from(target);
            }
            let same = parts.headers.get(header::HOST).is_some_and(|known| known.as_bytes() == host.as_bytes());
            if !same {
                let value = HeaderValue::from_str(host).map_err(|_| "the host is none")?;
                parts.headers.insert(header::HOST, value);
            }
        }
        Protocol::Http2 => {
            parts.version = Version::HTTP_2;
            parts.headers.remove(header::HOST);
            let mut uri = http::uri::Parts::default();
            uri.scheme = Some(Scheme::HTTP);
            uri.authority = Some(Authority::try_from(host).map_err(|_| "the host is none")?);
            uri.path_and_query = Some(target);
            parts.uri = Uri::from_parts(uri).map_err(|_| "the target is none")?;
        }
    }
    Ok(())
}

struct Outgoing {
    parts: request::Parts,
    body: Body,
    upgrade: bool,
}

enum Answered {
    /// As it goes to the client.
    Direct(Response<Body>),
    Streamed(Response<Incoming>, Option<Lease>),
}

/// A request in the form in which it is sent.
enum Message {
    Text(Text),
    Parts {
        now: Option<Box<Request<Body>>>,
        /// For another try after the first was sent.
        copy: Option<Box<(Method, Uri, Version, http::HeaderMap)>>,
    },
}

impl Message {
    /// One try. Tells also whether its connection had been used before.
    async fn send(
        &mut self,
        pool: &Rc<Pool>,
        (address, protocol): (SocketAddr, Protocol),
        fresh: bool,
        answer_max: Duration,
    ) -> (bool, Result<Answered, BackendError>) {
        match self {
            Self::Text(text) => match pool.wire(address, fresh).await {
                Ok((mut wire, reused)) => {
                    let asked = wire.ask(text, Instant::now() + answer_max).await;
                    let home = Home { pool: pool.clone(), address };
                    (reused, asked.map(|head| Answered::Direct(wire::answer(wire, head, home))))
                }
                Err(error) => (false, Err(error)),
            },
            // Boxed, so that the requests that do not need it are not as large as those that do.
            Self::Parts { now, copy } => match Box::pin(pool.connection(address, protocol, fresh)).await {
                Ok((connection, reused)) => {
                    let Some(request) = now.take().or_else(|| copy.as_deref().map(|copy| Box::new(rebuild(copy))))
                    else {
                        return (reused, Err(BackendError::NotSent(None)));
                    };
                    let sent = Box::pin(pool::send(pool, address, connection, *request));
                    let mut sent = tokio::time::timeout(answer_max, sent).await.unwrap_or(Err(BackendError::Late));
                    if let Err(BackendError::NotSent(back)) = &mut sent {
                        *now = back.take();
                    }
                    (reused, sent.map(|(answer, lease)| Answered::Streamed(answer, lease)))
                }
                Err(error) => (false, Err(error)),
            },
        }
    }
}

/// Sends a request to one of the addresses of a backend, and to another one where that is safe: always while nothing
/// was sent, and for methods without effect also when an answer was cut short.
async fn exchange(
    worker: &Rc<Worker>,
    action: &Action,
    backend: &Backend,
    outgoing: Outgoing,
) -> Result<Answered, Response<Body>> {
    if backend.addresses.is_empty() {
        return Err(answers::plain(StatusCode::SERVICE_UNAVAILABLE, "no endpoint of the Service is ready"));
    }
    let Outgoing { parts, body, upgrade } = outgoing;
    let whole = body.is_end_stream() && !upgrade;
    let replayable = whole && parts.method.is_idempotent();
    let text = if whole && backend.protocol == Protocol::Http1 { Text::of(&parts) } else { None };
    let mut message = match text {
        Some(text) => Message::Text(text),
        None => {
            let copy = replayable.then(|| Box::new(clone_head(&parts)));
            Message::Parts { now: Some(Box::new(Request::from_parts(parts, body))), copy }
        }
    };
    let first = worker.draw() as usize;
    let mut last = None;
    let mut stale = false;
    let mut attempt = 0;
    while attempt < ATTEMPTS_MAX {
        let address = pick(worker, backend, first.wrapping_add(attempt));
        // A kept connection that was closed says nothing about its backend: that try does not count.
        let fresh = upgrade || std::mem::take(&mut stale) || attempt > 0;
        let to = (address, backend.protocol);
        let (reused, sent) = message.send(&worker.pool, to, fresh, action.limits.answer).await;
        let error = match sent {
            Ok(answered) => {
                worker.sweep_later();
                return Ok(answered);
            }
            Err(BackendError::Late) => {
                return Err(answers::plain(StatusCode::GATEWAY_TIMEOUT, "the backend did not answer in time"));
            }
            Err(error) => error,
        };
        tracing::debug!(%address, backend = %backend.name, error = %chain(&error), "a backend does not answer");
        worker.shared.metrics.retries.fetch_add(1, Relaxed);
        match &error {
            BackendError::NotSent(_) => {
                stale = reused;
                attempt += usize::from(!reused);
                continue;
            }
            BackendError::Answer(hyper) => {
                if let Some(body) = body_error(hyper) {
                    return Err(match body {
                        BodyError::TooLarge => answers::too_large(),
                        BodyError::Stalled => answers::plain(StatusCode::REQUEST_TIMEOUT, "the request body stalled"),
                        BodyError::Broken(_) | BodyError::Cut(_) => {
                            answers::plain(StatusCode::BAD_REQUEST, "the request body broke off")
                        }
                    });
                }
            }
            _ => {}
        }
        let sent = matches!(error, BackendError::Answer(_) | BackendError::Cut(_) | BackendError::Head(_));
        stale = reused && sent;
        attempt += 1;
        last = Some(error);
        if sent && !replayable {
            break;
        }
    }
    let text = match last {
        Some(BackendError::Connect(_) | BackendError::ConnectTimeout) => "no endpoint of the Service takes connections",
        _ => "the backend's answer is broken",
    };
    Err(answers::plain(StatusCode::BAD_GATEWAY, text))
}

/// The address for a turn; one that refused a moment ago is left out while there are others.
fn pick(worker: &Worker, backend: &Backend, turn: usize) -> SocketAddr {
    let all = &backend.addresses;
    let candidates = (0..all.len()).map(|step| all[turn.wrapping_add(step) % all.len()]);
    candidates.clone().find(|address| !worker.pool.is_resting(*address)).unwrap_or(all[turn % all.len()])
}

fn clone_head(parts: &request::Parts) -> (Method, Uri, Version, http::HeaderMap) {
    (parts.method.clone(), parts.uri.clone(), parts.version, parts.headers.clone())
}

fn rebuild((method, uri, version, headers): &(Method, Uri, Version, http::HeaderMap)) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri.clone();
    *request.version_mut() = *version;
    *request.headers_mut() = headers.clone();
    request
}

/// What went wrong with the client's body, where that is why an exchange failed.
fn body_error(error: &hyper::Error) -> Option<&BodyError> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(body) = cause.downcast_ref() {
            return Some(body);
        }
        source = cause.source();
    }
    None
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The backend's answer as the client gets it.
fn finish(
    answer: Response<Incoming>,
    lease: Option<Lease>,
    waiting: Option<hyper::upgrade::OnUpgrade>,
) -> Response<Body> {
    let (mut parts, incoming) = answer.into_parts();
    parts.version = Version::HTTP_11;
    let switched = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    forward::strip(&mut parts.headers, switched);
    if switched {
        if let Some(lease) = lease {
            lease.forget();
        }
        let Some((theirs, ours)) = waiting.zip(parts.extensions.remove::<hyper::upgrade::OnUpgrade>()) else {
            return answers::plain(
                StatusCode::BAD_GATEWAY,
                "the backend changes a protocol that nobody asked to change",
            );
        };
        tunnel::start(theirs, ours);
        return Response::from_parts(parts, Body::empty());
    }
    let body = Body::through(incoming, 0);
    match lease {
        Some(lease) => Response::from_parts(parts, body.holding(lease)),
        None => Response::from_parts(parts, body),
    }
}

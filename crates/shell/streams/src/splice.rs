//! Sending a request on over an open connection and, when the next hop switches protocols, joining both byte streams.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};

use crate::StreamError;

/// A body of any origin.
pub type AnyBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A byte stream to the next hop: TCP, TLS or a Unix socket.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection for T {}

pub fn empty() -> AnyBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub fn full(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body as it comes from a connection.
pub fn incoming(body: Incoming) -> AnyBody {
    body.map_err(Into::into).boxed_unsync()
}

/// Whether a request asks to leave HTTP.
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
}

/// Sends `request` to `target` over `connection`. An answer of 101 joins the two streams in the background for as long
/// as both last; any other answer is passed on whole.
///
/// # Errors
/// The next hop broke off before it answered.
pub async fn splice(
    mut request: Request<AnyBody>,
    target: &Uri,
    connection: impl Connection,
) -> Result<Response<AnyBody>, StreamError> {
    let upgrade = wants_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let mut onward = Request::builder().method(parts.method).uri(path(target)).body(body)?;
    *onward.headers_mut() = onward_headers(parts.headers, target);

    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    tokio::spawn(async move {
        // An error here reaches whoever waits for the answer or reads the body.
        let _ = driver.with_upgrades().await;
    });
    let mut answer = sender.send_request(onward).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(upgrade) = upgrade
    {
        let far = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            let (Ok(near), Ok(far)) = tokio::join!(upgrade, far) else { return };
            let outcome = copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await;
            tracing::trace!(?outcome, "spliced stream ended");
        });
        let (parts, _) = answer.into_parts();
        return Ok(Response::from_parts(parts, empty()));
    }
    Ok(answer.map(incoming))
}

/// Path and query: what an HTTP/1.1 request line holds.
pub(crate) fn path(target: &Uri) -> Uri {
    let text = target.path_and_query().map_or("/", |both| both.as_str());
    text.parse().unwrap_or_default()
}

/// The caller's credentials stop here: each hop has its own.
fn onward_headers(mut headers: HeaderMap, target: &Uri) -> HeaderMap {
    headers.remove(AUTHORIZATION);
    if !headers.contains_key(UPGRADE) {
        headers.remove(CONNECTION);
    }
    if let Some(host) = target.authority().and_then(|authority| authority.as_str().parse().ok()) {
        headers.insert(HOST, host);
    }
    headers
}

//! The server's half of a WebSocket handshake, with the subprotocols that Kubernetes clients offer.

use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::StreamError;
use crate::splice::{AnyBody, empty};

/// A message above this ends the connection: clients send keystrokes and file chunks, not files.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// An accepted WebSocket.
pub type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Whether a request asks for a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The subprotocols a client offers, best first.
pub fn offered(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// A WebSocket that becomes usable once the answer has been sent.
pub struct Pending(OnUpgrade);

impl Pending {
    /// # Errors
    /// The client left before the protocol was switched.
    pub async fn open(self) -> Result<Socket, StreamError> {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(self.0.await?), Role::Server, Some(config)).await)
    }
}

/// Answers a handshake with the first of `served` that the client offers. A client that offers none is served without
/// a subprotocol where `served` has the empty name.
///
/// # Errors
/// It is no WebSocket request, or offers only subprotocols that are not served.
pub fn accept<B>(
    request: &mut Request<B>,
    served: &[&str],
) -> Result<(String, Response<AnyBody>, Pending), StreamError> {
    let headers = request.headers();
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| is_websocket(headers)).ok_or(StreamError::NoUpgrade)?;
    let offered = offered(headers);
    let chosen = if offered.is_empty() {
        served.iter().find(|name| name.is_empty())
    } else {
        served.iter().find(|name| offered.iter().any(|o| o == *name))
    };
    let chosen = (*chosen.ok_or(StreamError::NoUpgrade)?).to_owned();
    let mut answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .body(empty())?;
    if !chosen.is_empty() {
        let name: HeaderName = SEC_WEBSOCKET_PROTOCOL;
        answer.headers_mut().insert(name, HeaderValue::from_str(&chosen).map_err(http::Error::from)?);
    }
    Ok((chosen, answer, Pending(hyper::upgrade::on(request))))
}

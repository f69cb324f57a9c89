//! Byte streams inside WebSocket messages: SPDY port-forwarding through a WebSocket, and followed logs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::splice::{AnyBody, Connection, path};
use crate::{StreamError, empty, websocket};

/// What newer kubectl offers for port-forwarding: SPDY frames as binary messages.
pub const SPDY_IN_WEBSOCKET: &str = "SPDY/3.1+portforward.k8s.io";
const PORT_FORWARD: &str = "portforward.k8s.io";
const CHUNK_BYTES: usize = 32 << 10;

/// Serves a WebSocket client whose messages carry SPDY, with the runtime's stream at `target`.
///
/// # Errors
/// The client offers another protocol, or the runtime refuses the stream.
pub async fn serve<B>(
    mut request: Request<B>,
    target: &Uri,
    connection: impl Connection,
) -> Result<Response<AnyBody>, StreamError> {
    let (_, answer, pending) = websocket::accept(&mut request, &[SPDY_IN_WEBSOCKET])?;
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    tokio::spawn(driver.with_upgrades());
    let host = target.authority().map_or("runtime", |authority| authority.as_str());
    let onward = Request::post(path(target))
        .header("Host", host)
        .header("Connection", "Upgrade")
        .header("Upgrade", "SPDY/3.1")
        .header("X-Stream-Protocol-Version", PORT_FORWARD)
        .body(empty())?;
    let mut far = sender.send_request(onward).await?;
    if far.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(StreamError::Refused(far.status()));
    }
    let far = hyper::upgrade::on(&mut far).await?;
    tokio::spawn(async move {
        if let Err(error) = copy(pending, TokioIo::new(far)).await {
            tracing::debug!(%error, "port-forward ended early");
        }
    });
    Ok(answer)
}

async fn copy(pending: websocket::Pending, far: TokioIo<hyper::upgrade::Upgraded>) -> Result<(), StreamError> {
    let mut socket = pending.open().await?;
    let (mut reader, mut writer) = tokio::io::split(far);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        tokio::select! {
            length = reader.read(&mut buffer) => match length? {
                0 => break,
                length => socket.send(Message::binary(buffer[..length].to_vec())).await?,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => writer.write_all(&bytes).await?,
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    let _ = socket.close(None).await;
    Ok(())
}

/// What clients offer to read a byte stream through a WebSocket.
const BYTE_STREAMS: [&str; 3] = ["binary.k8s.io", "base64.binary.k8s.io", ""];

/// Serves a WebSocket client with the bytes of a body, a message a chunk: a followed log in a browser.
///
/// # Errors
/// The client offers another protocol.
pub fn serve_body<B>(request: &mut Request<B>, mut body: AnyBody) -> Result<Response<AnyBody>, StreamError> {
    let (protocol, answer, pending) = websocket::accept(request, &BYTE_STREAMS)?;
    tokio::spawn(async move {
        let Ok(mut socket) = pending.open().await else { return };
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(bytes) = frame.into_data() else { continue };
            let message = if protocol.starts_with("base64") {
                Message::text(STANDARD.encode(&bytes))
            } else {
                Message::binary(bytes)
            };
            if socket.send(message).await.is_err() {
                return;
            }
        }
        let _ = socket.close(None).await;
    });
    Ok(answer)
}

//! exec and attach: a client's WebSocket channels on one side, the runtime's SPDY streams on the other.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::codec::Framed;

use crate::spdy::{self, Receive, Send};
use crate::splice::{AnyBody, Connection, path};
use crate::websocket::{self, Pending, Socket};
use crate::{StreamError, empty};

/// What Kubernetes clients offer, best first; the empty name is a client that offers nothing.
const SERVED: [&str; 6] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
];
/// The version that every runtime's SPDY speaks.
const RUNTIME_PROTOCOL: &str = "v4.channel.k8s.io";

/// How long a client may take to answer the close.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5: this channel's message names a channel that the client ends.
const CLOSE: u8 = 255;

/// Which streams the client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Streams {
    fn channels(self) -> impl Iterator<Item = (u8, &'static str)> {
        [
            (true, ERROR, "error"),
            (self.stdin, STDIN, "stdin"),
            (self.stdout, STDOUT, "stdout"),
            (self.stderr && !self.tty, STDERR, "stderr"),
            (self.tty, RESIZE, "resize"),
        ]
        .into_iter()
        .filter_map(|(wanted, channel, name)| wanted.then_some((channel, name)))
    }
}

/// Serves a WebSocket client of exec or attach with the runtime's stream at `target`, reached over `connection`.
///
/// # Errors
/// The client offers no protocol served here, or the runtime refuses the stream.
pub async fn serve<B>(
    mut request: Request<B>,
    streams: Streams,
    target: &Uri,
    connection: impl Connection,
) -> Result<Response<AnyBody>, StreamError> {
    let (protocol, answer, pending) = websocket::accept(&mut request, &SERVED)?;
    let runtime = open_runtime(streams, target, connection).await?;
    tokio::spawn(async move {
        if let Err(error) = translate(pending, &protocol, streams, runtime).await {
            tracing::debug!(%error, "remote command ended early");
        }
    });
    Ok(answer)
}

type Runtime = Framed<TokioIo<hyper::upgrade::Upgraded>, spdy::Codec>;

async fn open_runtime(streams: Streams, target: &Uri, connection: impl Connection) -> Result<Runtime, StreamError> {
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    tokio::spawn(driver.with_upgrades());
    let host = target.authority().map_or("runtime", |authority| authority.as_str());
    let request = Request::post(path(target))
        .header("Host", host)
        .header("Connection", "Upgrade")
        .header("Upgrade", "SPDY/3.1")
        .header("X-Stream-Protocol-Version", RUNTIME_PROTOCOL)
        .body(empty())?;
    let mut answer = sender.send_request(request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(StreamError::Refused(answer.status()));
    }
    let upgraded = hyper::upgrade::on(&mut answer).await?;
    let mut runtime = Framed::new(TokioIo::new(upgraded), spdy::Codec::default());
    for (index, (_, name)) in streams.channels().enumerate() {
        let headers = vec![("streamtype", name.to_owned())];
        runtime.send(Send::Open { stream: stream_id(index), headers }).await?;
    }
    Ok(runtime)
}

/// A client's streams have odd numbers.
fn stream_id(index: usize) -> u32 {
    index as u32 * 2 + 1
}

struct Wire {
    socket: Socket,
    base64: bool,
    /// Versions 4 and 5 end with a Status object; the older ones with words, and only when something failed.
    status: bool,
}

impl Wire {
    async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), StreamError> {
        let message = if self.base64 {
            Message::text(format!("{}{}", char::from(b'0' + channel), STANDARD.encode(bytes)))
        } else {
            let mut framed = Vec::with_capacity(bytes.len() + 1);
            framed.push(channel);
            framed.extend_from_slice(bytes);
            Message::binary(framed)
        };
        Ok(self.socket.send(message).await?)
    }

    async fn send_outcome(&mut self, status: &[u8]) -> Result<(), StreamError> {
        if self.status {
            return self.send(ERROR, status).await;
        }
        let status: Value = serde_json::from_slice(status).unwrap_or_default();
        match status["message"].as_str() {
            Some(message) if status["status"] != "Success" => self.send(ERROR, message.as_bytes()).await,
            _ => Ok(()),
        }
    }

    /// Channel and payload of a client's message.
    fn read(&self, message: &Message) -> Option<(u8, Bytes)> {
        let raw: Bytes = match message {
            Message::Binary(bytes) => bytes.clone(),
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            _ => return None,
        };
        let channel = *raw.first()?;
        let payload = raw.slice(1..);
        if self.base64 {
            Some((channel.checked_sub(b'0')?, STANDARD.decode(payload).ok()?.into()))
        } else {
            Some((channel, payload))
        }
    }
}

/// Copies until the runtime has ended every stream, or the client has left.
async fn translate(
    pending: Pending,
    protocol: &str,
    streams: Streams,
    mut runtime: Runtime,
) -> Result<(), StreamError> {
    let socket = pending.open().await?;
    let mut wire = Wire { socket, base64: protocol.contains("base64"), status: protocol.starts_with('v') };
    let ids: Vec<(u32, u8)> =
        streams.channels().enumerate().map(|(index, (channel, _))| (stream_id(index), channel)).collect();
    let id_of = |channel: u8| ids.iter().find(|(_, c)| *c == channel).map(|(id, _)| *id);
    let mut open: Vec<u8> =
        ids.iter().map(|(_, channel)| *channel).filter(|c| matches!(*c, STDOUT | STDERR | ERROR)).collect();
    let mut outcome = Vec::new();
    let mut client_gone = false;
    while !open.is_empty() {
        tokio::select! {
            frame = runtime.next() => match frame.transpose()? {
                Some(Receive::Data { stream, bytes, end }) => {
                    let Some((_, channel)) = ids.iter().find(|(id, _)| *id == stream) else { continue };
                    match *channel {
                        ERROR => outcome.extend_from_slice(&bytes),
                        channel if !bytes.is_empty() => wire.send(channel, &bytes).await?,
                        _ => {}
                    }
                    if end {
                        open.retain(|c| c != channel);
                    }
                }
                Some(Receive::Reset { stream }) => open.retain(|c| id_of(*c) != Some(stream)),
                Some(Receive::Ping { id }) => runtime.send(Send::Pong { id }).await?,
                Some(Receive::GoAway | Receive::Skipped) => {}
                None => break,
            },
            message = wire.socket.next(), if !client_gone => match message {
                Some(Ok(Message::Close(_))) | None | Some(Err(_)) => {
                    // The command may still run; without a reader there is nothing left to do for it.
                    client_gone = true;
                    break;
                }
                Some(Ok(message)) => match wire.read(&message) {
                    Some((CLOSE, which)) => {
                        if let Some(stream) = which.first().and_then(|channel| id_of(*channel)) {
                            runtime.send(Send::End { stream }).await?;
                        }
                    }
                    Some((channel @ (STDIN | RESIZE), bytes)) => {
                        let Some(stream) = id_of(channel) else { continue };
                        for piece in bytes.chunks(spdy::DATA_BYTES_MAX) {
                            runtime.send(Send::Data { stream, bytes: bytes.slice_ref(piece) }).await?;
                        }
                    }
                    _ => {}
                },
            },
        }
    }
    if !client_gone {
        wire.send_outcome(&outcome).await?;
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        wire.socket.close(Some(frame)).await?;
        // The client answers the close; reading to the end lets it see everything that was sent before.
        let drain = async { while let Some(Ok(_)) = wire.socket.next().await {} };
        let _ = tokio::time::timeout(CLOSE_WITHIN, drain).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_no_standard_error_but_a_size() {
        let names = |streams: Streams| streams.channels().map(|(_, name)| name).collect::<Vec<_>>().join(" ");
        let all = Streams { stdin: true, stdout: true, stderr: true, tty: false };
        assert_eq!(names(all), "error stdin stdout stderr");
        assert_eq!(names(Streams { tty: true, ..all }), "error stdin stdout resize");
    }
}

//! The smallest HTTP server: one short answer by path for each connection, as health checks need.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longest time that a request may take, and most bytes of it.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// Most requests of one port answered at the same time.
const CONNECTIONS_MAX: usize = 32;
/// Wait before a port that somebody else holds is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What is answered.
pub struct Answer {
    /// Code and words: `200 OK`.
    pub status: &'static str,
    pub content_type: &'static str,
    /// Further lines of the head, each with its end.
    pub headers: String,
    pub body: String,
}

impl Answer {
    /// A success in plain text.
    pub fn text(body: &str) -> Self {
        Self {
            status: "200 OK",
            content_type: "text/plain; charset=utf-8",
            headers: String::new(),
            body: body.to_owned(),
        }
    }

    pub fn not_found() -> Self {
        Self { status: "404 Not Found", ..Self::text("404 page not found\n") }
    }

    pub fn json(is_good: bool, body: &serde_json::Value) -> Self {
        let status = if is_good { "200 OK" } else { "503 Service Unavailable" };
        Self { status, content_type: "application/json", headers: String::new(), body: body.to_string() }
    }

    fn bytes(self) -> String {
        format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nX-Content-Type-Options: nosniff\r\n{}Content-Length: {}\r\n\
             Connection: close\r\n\r\n{}",
            self.status,
            self.content_type,
            self.headers,
            self.body.len(),
            self.body
        )
    }
}

/// What to answer to a path.
pub type Answers = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// Serves until cancelled.
pub async fn serve(address: SocketAddr, answers: Answers, stop: CancellationToken) {
    let mut told = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::warn!(%address, %error, "cannot serve health checks, trying again");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    };
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(tokio::time::timeout(REQUEST_TIME_MAX, exchange(stream, answers.clone())));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn exchange(mut stream: TcpStream, answers: Answers) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        match stream.read(&mut buffer).await? {
            0 => break,
            length => request.extend_from_slice(&buffer[..length]),
        }
    }
    let head = String::from_utf8_lossy(&request);
    let target = head.split_whitespace().nth(1).unwrap_or("/");
    let path = target.split('?').next().unwrap_or("/");
    stream.write_all(answers(path).bytes().as_bytes()).await?;
    stream.shutdown().await
}

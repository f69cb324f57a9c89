//! One client connection: PROXY protocol, TLS, and which HTTP it speaks.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::deadline::OneTimer;
use crate::limits::{
    CLIENT_SILENCE_MAX, DRAIN_MAX, FIRST_BYTE_MAX, HANDSHAKE_MAX, HEADERS_BYTES_MAX, HEADERS_TIME_MAX,
    PROXY_HEADER_MAX, STREAMS_MAX,
};
use crate::linger::Lingering;
use crate::proxy;
use crate::proxy_protocol::{self, Header};
use crate::worker::{Accepted, Local, Worker};

/// How an HTTP/2 connection begins when both sides know that it is one.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An HTTP/2 connection without requests ends after this; HTTP/1 has its own bound.
const HTTP2_IDLE_MAX: std::time::Duration = std::time::Duration::from_secs(120);

/// Who is on the other side.
#[derive(Clone, Debug)]
pub struct Client {
    pub ip: IpAddr,
    /// The listener's port.
    pub port: u16,
    pub tls: bool,
    /// A proxy whose headers are believed.
    pub trusted: bool,
    /// Address and port as headers say them, for all requests of the connection.
    pub ip_text: HeaderValue,
    pub port_text: HeaderValue,
}

impl Client {
    pub fn new(ip: IpAddr, port: u16, tls: bool, trusted: bool) -> Self {
        let ip_text = HeaderValue::from_str(&ip.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        Self { ip, port, tls, trusted, ip_text, port_text: HeaderValue::from(port) }
    }
}

/// Requests of a connection: how many are open, and when the last one ended.
struct Activity {
    open: Cell<u32>,
    since: Cell<Instant>,
}

struct Open<'a>(&'a Activity);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.since.set(Instant::now());
    }
}

/// Serves a connection to its end. Whatever a client does ends its own connection only.
pub async fn serve(worker: &Rc<Worker>, accepted: Accepted) {
    if let Err(error) = try_serve(worker, accepted).await {
        tracing::debug!(%error, "a client connection ended");
    }
}

async fn try_serve(worker: &Rc<Worker>, accepted: Accepted) -> io::Result<()> {
    let Accepted { stream, peer, port, tls, stop } = accepted;
    let mut stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    let silence = u32::try_from(CLIENT_SILENCE_MAX.as_millis()).unwrap_or(u32::MAX);
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::TcpUserTimeout, &silence)?;
    let client = {
        let live = worker.shared.serving.live();
        let trusted = !live.trusted.is_empty() && live.trusts(peer.ip());
        let expected = trusted && live.settings.proxy_protocol;
        drop(live);
        let told = match expected {
            true => timeout(PROXY_HEADER_MAX, read_proxy_header(&mut stream)).await??,
            false => None,
        };
        // Where the header told who the client is, what that client writes itself is not to be believed.
        Rc::new(Client::new(told.unwrap_or(peer).ip(), port, tls.is_some(), trusted && !expected))
    };
    // Nothing is allocated for a client that says nothing.
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        readable = timeout(FIRST_BYTE_MAX, stream.readable()) => readable??,
    }
    let Some(tls) = tls else {
        let mut begin = [0; PREFACE.len()];
        let length = timeout(FIRST_BYTE_MAX, stream.peek(&mut begin)).await??;
        let is_http2 = length >= 4 && begin[..length] == PREFACE[..length];
        return if is_http2 {
            serve_http2(worker, client, stream, stop).await
        } else {
            serve_http1(worker, client, stream, stop).await
        };
    };
    let handshake = timeout(HANDSHAKE_MAX, TlsAcceptor::from(tls).accept(stream)).await;
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            worker.shared.metrics.handshakes_failed.fetch_add(1, Relaxed);
            return Err(error);
        }
        Err(late) => {
            worker.shared.metrics.handshakes_failed.fetch_add(1, Relaxed);
            return Err(late.into());
        }
    };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        serve_http2(worker, client, stream, stop).await
    } else {
        serve_http1(worker, client, stream, stop).await
    }
}

async fn read_proxy_header(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut bytes = [0; proxy_protocol::HEADER_BYTES_MAX];
    let mut before = 0;
    loop {
        let length = stream.peek(&mut bytes).await?;
        match proxy_protocol::parse(&bytes[..length]) {
            Header::Complete { length, client } => {
                stream.read_exact(&mut bytes[..length]).await?;
                return Ok(client);
            }
            Header::Incomplete if length > before => before = length,
            // The rest is on its way; the same bytes stay readable until it comes.
            Header::Incomplete if length > 0 => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "no PROXY protocol header")),
        }
    }
}

async fn serve_http1<S>(worker: &Rc<Worker>, client: Rc<Client>, stream: S, stop: CancellationToken) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (worker, client) = (worker.clone(), client.clone());
        async move { Ok::<_, Infallible>(proxy::handle(&worker, &client, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(OneTimer::default())
        .header_read_timeout(HEADERS_TIME_MAX)
        .max_header_size(HEADERS_BYTES_MAX)
        .max_buf_size(HEADERS_BYTES_MAX + 1024)
        .half_close(true)
        .serve_connection(TokioIo::new(Lingering::new(stream)), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(DRAIN_MAX, connection).await?
        }
    };
    ended.map_err(io::Error::other)
}

async fn serve_http2<S>(worker: &Rc<Worker>, client: Rc<Client>, stream: S, stop: CancellationToken) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Rc::new(Activity { open: Cell::new(0), since: Cell::new(Instant::now()) });
    let service = {
        let (worker, activity) = (worker.clone(), activity.clone());
        service_fn(move |request: Request<Incoming>| {
            let (worker, client, activity) = (worker.clone(), client.clone(), activity.clone());
            activity.open.set(activity.open.get() + 1);
            async move {
                let _open = Open(&activity);
                Ok::<_, Infallible>(proxy::handle(&worker, &client, request).await)
            }
        })
    };
    let connection = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX as u32)
        .max_send_buf_size(HEADERS_BYTES_MAX)
        .keep_alive_interval(CLIENT_SILENCE_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let idle = async {
        loop {
            tokio::time::sleep(HTTP2_IDLE_MAX / 2).await;
            if activity.open.get() == 0 && activity.since.get().elapsed() > HTTP2_IDLE_MAX {
                return;
            }
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { tokio::select! { () = stop.cancelled() => {}, () = idle => {} } } => {
            connection.as_mut().graceful_shutdown();
            timeout(DRAIN_MAX, connection).await?
        }
    };
    ended.map_err(io::Error::other)
}

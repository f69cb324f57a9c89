//! Connections to backends, of one worker: made, kept while idle, closed when their address leaves the table.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use routes::table::Table;
use routes::view::Protocol;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::answer_head::BadHead;
use crate::body::Body;
use crate::limits::{ANSWER_HEADERS_BYTES_MAX, BACKEND_REST, CONNECT_MAX, IDLE_MAX, IDLE_PER_BACKEND_MAX};
use crate::wire::Wire;
use crate::worker::Local;

/// Why a backend gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("no connection within {CONNECT_MAX:?}")]
    ConnectTimeout,
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    /// Nothing of the request was sent; it is in here if it was given away.
    #[error("the connection was closed before the request was sent")]
    NotSent(Option<Box<Request<Body>>>),
    #[error("no answer in time")]
    Late,
    #[error("the answer was cut short")]
    Cut(#[source] std::io::Error),
    #[error("the answer cannot be understood")]
    Head(#[source] BadHead),
    #[error("the answer was cut short or is no HTTP")]
    Answer(#[source] hyper::Error),
}

/// A connection that is ready for a request.
pub enum Connection {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

struct Idle {
    connection: http1::SendRequest<Body>,
    since: Instant,
}

/// The pool.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<HashMap<SocketAddr, Vec<Idle>>>,
    /// Connections for requests without a body, the one used last at the end.
    wires: RefCell<HashMap<SocketAddr, Vec<(Wire, Instant)>>>,
    /// One HTTP/2 connection carries any number of requests.
    shared: RefCell<HashMap<SocketAddr, http2::SendRequest<Body>>>,
    /// Until when an address that refused is asked last.
    resting: RefCell<HashMap<SocketAddr, Instant>>,
}

impl Pool {
    /// A kept connection, if there is one that still lives.
    fn kept(&self, address: SocketAddr, protocol: Protocol) -> Option<Connection> {
        match protocol {
            Protocol::Http1 => {
                let mut idle = self.idle.borrow_mut();
                let waiting = idle.get_mut(&address)?;
                waiting.retain(|kept| !kept.connection.is_closed() && kept.since.elapsed() < IDLE_MAX);
                // One that was put back a moment ago may not have noticed yet that its answer is over.
                let ready = waiting.iter().rposition(|kept| kept.connection.is_ready())?;
                Some(Connection::Http1(waiting.swap_remove(ready).connection))
            }
            Protocol::Http2 => {
                let mut shared = self.shared.borrow_mut();
                let connection = shared.get(&address)?;
                if connection.is_closed() {
                    shared.remove(&address);
                    return None;
                }
                Some(Connection::Http2(connection.clone()))
            }
        }
    }

    /// A connection to the address; `fresh` makes a new one in any case. Tells whether it was used before.
    pub async fn connection(
        &self,
        address: SocketAddr,
        protocol: Protocol,
        fresh: bool,
    ) -> Result<(Connection, bool), BackendError> {
        if !fresh && let Some(kept) = self.kept(address, protocol) {
            return Ok((kept, true));
        }
        let io = TokioIo::new(self.connect(address).await?);
        let connection = match protocol {
            Protocol::Http1 => {
                let (sender, driver) = http1::Builder::new()
                    .max_buf_size(ANSWER_HEADERS_BYTES_MAX)
                    .handshake(io)
                    .await
                    .map_err(BackendError::Answer)?;
                tokio::task::spawn_local(async move { drop(driver.with_upgrades().await) });
                Connection::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, driver) = http2::Builder::new(Local)
                    .timer(TokioTimer::new())
                    .adaptive_window(true)
                    .handshake(io)
                    .await
                    .map_err(BackendError::Answer)?;
                tokio::task::spawn_local(async move { drop(driver.await) });
                self.shared.borrow_mut().insert(address, sender.clone());
                Connection::Http2(sender)
            }
        };
        Ok((connection, false))
    }

    /// The same for a request without a body.
    pub async fn wire(&self, address: SocketAddr, fresh: bool) -> Result<(Wire, bool), BackendError> {
        if !fresh && let Some(kept) = self.kept_wire(address) {
            return Ok((kept, true));
        }
        Ok((Wire::new(Box::pin(self.connect(address)).await?), false))
    }

    fn kept_wire(&self, address: SocketAddr) -> Option<Wire> {
        let mut wires = self.wires.borrow_mut();
        let waiting = wires.get_mut(&address)?;
        while let Some((wire, since)) = waiting.pop() {
            if since.elapsed() >= IDLE_MAX {
                // So are all others, which have waited for longer.
                waiting.clear();
            } else if wire.is_quiet() {
                return Some(wire);
            }
        }
        None
    }

    pub fn keep_wire(&self, address: SocketAddr, wire: Wire) {
        let mut wires = self.wires.borrow_mut();
        let waiting = wires.entry(address).or_default();
        if waiting.len() < IDLE_PER_BACKEND_MAX {
            waiting.push((wire, Instant::now()));
        }
    }

    async fn connect(&self, address: SocketAddr) -> Result<TcpStream, BackendError> {
        let stream = match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.rest(address);
                return Err(BackendError::Connect(error));
            }
            Err(_) => {
                self.rest(address);
                return Err(BackendError::ConnectTimeout);
            }
        };
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    fn rest(&self, address: SocketAddr) {
        self.resting.borrow_mut().insert(address, Instant::now() + BACKEND_REST);
    }

    /// Whether an address refused a moment ago.
    pub fn is_resting(&self, address: SocketAddr) -> bool {
        let resting = self.resting.borrow();
        !resting.is_empty() && resting.get(&address).is_some_and(|until| *until > Instant::now())
    }

    fn keep(&self, address: SocketAddr, connection: http1::SendRequest<Body>) {
        if connection.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.entry(address).or_default();
        if waiting.len() < IDLE_PER_BACKEND_MAX {
            waiting.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Closes what is idle for too long, and what leads to addresses that the table does not hold.
    pub fn sweep(&self, table: Option<&Table>) {
        let serves = |address: &SocketAddr| table.is_none_or(|table| table.addresses.contains(&address.ip()));
        let now = Instant::now();
        self.idle.borrow_mut().retain(|address, waiting| {
            waiting.retain(|kept| now.duration_since(kept.since) < IDLE_MAX && !kept.connection.is_closed());
            !waiting.is_empty() && serves(address)
        });
        self.wires.borrow_mut().retain(|address, waiting| {
            waiting.retain(|(wire, since)| now.duration_since(*since) < IDLE_MAX && wire.is_quiet());
            !waiting.is_empty() && serves(address)
        });
        self.shared.borrow_mut().retain(|address, connection| !connection.is_closed() && serves(address));
        self.resting.borrow_mut().retain(|_, until| *until > now);
    }

    pub fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty()
            && self.wires.borrow().is_empty()
            && self.shared.borrow().is_empty()
            && self.resting.borrow().is_empty()
    }
}

/// Sends a request; the connection goes back to the pool when the answer has been read to its end.
pub async fn send(
    pool: &Rc<Pool>,
    address: SocketAddr,
    connection: Connection,
    request: Request<Body>,
) -> Result<(Response<Incoming>, Option<Lease>), BackendError> {
    match connection {
        Connection::Http1(mut sender) => {
            if sender.ready().await.is_err() {
                return Err(BackendError::NotSent(Some(Box::new(request))));
            }
            match sender.try_send_request(request).await {
                Ok(answer) => Ok((answer, Some(Lease { pool: pool.clone(), address, sender: Some(sender) }))),
                Err(mut error) => Err(match error.take_message() {
                    Some(request) => BackendError::NotSent(Some(Box::new(request))),
                    None => BackendError::Answer(error.into_error()),
                }),
            }
        }
        Connection::Http2(mut sender) => {
            if sender.ready().await.is_err() {
                return Err(BackendError::NotSent(Some(Box::new(request))));
            }
            match sender.try_send_request(request).await {
                Ok(answer) => Ok((answer, None)),
                Err(mut error) => Err(match error.take_message() {
                    Some(request) => BackendError::NotSent(Some(Box::new(request))),
                    None => BackendError::Answer(error.into_error()),
                }),
            }
        }
    }
}

/// A connection in use; dropped with the answer's body, it returns to the pool.
pub struct Lease {
    pool: Rc<Pool>,
    address: SocketAddr,
    sender: Option<http1::SendRequest<Body>>,
}

impl Lease {
    /// The connection has become a tunnel.
    pub fn forget(mut self) {
        self.sender = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            self.pool.keep(self.address, sender);
        }
    }
}

//! HTTP/1.1 to a backend for requests without a body, spoken in the task of the request itself.
//!
//! Nearly all requests are of this kind. Such a request is one write and its answer mostly one read, with no task and no
//! channel in between, which cost more than all the rest of a request's way. What has a body to send, or asks for another
//! protocol, goes by hyper's client (see `pool.rs`).

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, Response, header, request};
use http_body::Frame;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::answer_head::{self, Head};
use crate::body::{Body, BodyError};
use crate::deadline::Deadline;
use crate::framing::{Framing, Piece};
use crate::limits::{ANSWER_READ_BYTES, BODY_STALL_MAX};
use crate::pool::{BackendError, Pool};

thread_local! {
    /// What a read fills first: one warm place for all connections of a worker, of which most wait.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; ANSWER_READ_BYTES]);
}

/// A request without a body as it is written, as often as it is tried.
pub struct Text {
    method: Method,
    bytes: Vec<u8>,
}

impl Text {
    /// `None` for headers that announce a body.
    pub fn of(parts: &request::Parts) -> Option<Self> {
        let mut lengths = parts.headers.get_all(header::CONTENT_LENGTH).iter();
        let announced = lengths.next().is_some_and(|length| length != "0") || lengths.next().is_some();
        if announced || parts.headers.contains_key(header::TRANSFER_ENCODING) {
            return None;
        }
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let lines = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
        let mut bytes = Vec::with_capacity(parts.method.as_str().len() + target.len() + lines + 16);
        let mut write = |part: &[u8]| bytes.extend_from_slice(part);
        write(parts.method.as_str().as_bytes());
        write(b" ");
        write(target.as_bytes());
        write(b" HTTP/1.1\r\n");
        for (name, value) in &parts.headers {
            write(name.as_str().as_bytes());
            write(b": ");
            write(value.as_bytes());
            write(b"\r\n");
        }
        write(b"\r\n");
        Some(Self { method: parts.method.clone(), bytes })
    }
}

/// A connection to a backend.
pub struct Wire {
    stream: TcpStream,
    /// What came and was not taken yet.
    read: BytesMut,
    deadline: Deadline,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, read: BytesMut::new(), deadline: Deadline::default() }
    }

    /// Whether an idle connection is still of use: it was not closed, and says nothing that nobody asked for.
    pub fn is_quiet(&self) -> bool {
        self.read.is_empty()
            && matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Sends a request and reads the head of its answer, both by `until`.
    pub async fn ask(&mut self, text: &Text, until: Instant) -> Result<Head, BackendError> {
        self.write(&text.bytes, until).await?;
        loop {
            if poll_fn(|cx| self.poll_fill(cx, until)).await? == 0 {
                return Err(BackendError::Cut(ErrorKind::UnexpectedEof.into()));
            }
            if let Some(head) = answer_head::take(&mut self.read, &text.method).map_err(BackendError::Head)? {
                return Ok(head);
            }
        }
    }

    async fn write(&self, bytes: &[u8], until: Instant) -> Result<(), BackendError> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.try_write(&bytes[sent..]) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let writable = timeout_at(until, self.stream.writable()).await;
                    writable.map_err(|_| BackendError::Late)?.map_err(BackendError::Cut)?;
                }
                Err(_) if sent == 0 => return Err(BackendError::NotSent(None)),
                Err(error) => return Err(BackendError::Cut(error)),
            }
        }
        Ok(())
    }

    /// Reads what there is; 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<Result<usize, BackendError>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut scratch = ReadBuf::new(scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(())) => {
                    self.read.extend_from_slice(scratch.filled());
                    Poll::Ready(Ok(scratch.filled().len()))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(BackendError::Cut(error))),
                Poll::Pending => self.deadline.poll(cx, until).map(|()| Err(BackendError::Late)),
            }
        })
    }
}

/// Where a connection is kept when its answer is over.
pub struct Home {
    pub pool: Rc<Pool>,
    pub address: SocketAddr,
}

impl Home {
    fn take_back(&self, wire: Wire) {
        // Bytes beyond the answer would be taken for the next one.
        if wire.read.is_empty() {
            self.pool.keep_wire(self.address, Wire { read: BytesMut::new(), ..wire });
        }
    }
}

/// The answer with its body still to come. A body that is here already is a mere text, and the connection free again.
pub fn answer(mut wire: Wire, head: Head, home: Home) -> Response<Body> {
    let Head { answer, framing, persistent } = head;
    let here = match &framing {
        Framing::Length(length) => usize::try_from(*length).ok().filter(|length| *length <= wire.read.len()),
        _ => None,
    };
    let body = match here {
        Some(length) => {
            let text = wire.read.split_to(length).freeze();
            if persistent {
                home.take_back(wire);
            }
            if text.is_empty() { Body::empty() } else { Body::text(text) }
        }
        None => Body::Coming(Coming {
            wire: Some(wire),
            framing,
            home: persistent.then_some(home),
            until: None,
            broken: None,
        }),
    };
    answer.map(|()| body)
}

/// The rest of an answer, read as the client takes it.
pub struct Coming {
    /// Until the body is over.
    wire: Option<Wire>,
    framing: Framing,
    /// Set if the connection takes another request afterwards.
    home: Option<Home>,
    /// While nothing comes: when to give up.
    until: Option<Instant>,
    /// What is told next.
    broken: Option<BodyError>,
}

impl Coming {
    pub fn is_over(&self) -> bool {
        self.wire.is_none() && self.broken.is_none()
    }

    /// The bytes left, where that is known.
    pub fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(left) => Some(left),
            _ => None,
        }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = self.poll_piece(cx);
        if let Poll::Ready(None | Some(Err(_))) = &polled {
            self.wire = None;
        }
        match polled {
            // With the error the client's connection ends at once; what came before it is written first.
            Poll::Ready(Some(Err(error))) => {
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let Some(wire) = &mut self.wire else { return Poll::Ready(None) };
            let piece = self.framing.take(&mut wire.read);
            if self.framing.is_over()
                && let Some((wire, home)) = self.wire.take().zip(self.home.take())
            {
                home.take_back(wire);
            }
            match piece {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::Wanting) => {}
                Err(bad) => return Poll::Ready(Some(Err(BodyError::Cut(io::Error::new(ErrorKind::InvalidData, bad))))),
            }
            let Some(wire) = &mut self.wire else { return Poll::Ready(None) };
            let until = *self.until.get_or_insert_with(|| Instant::now() + BODY_STALL_MAX);
            match ready!(wire.poll_fill(cx, until)) {
                Ok(0) if self.framing == Framing::Close => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(BodyError::Cut(ErrorKind::UnexpectedEof.into())))),
                Ok(_) => self.until = None,
                Err(BackendError::Cut(error)) => return Poll::Ready(Some(Err(BodyError::Cut(error)))),
                Err(_) => return Poll::Ready(Some(Err(BodyError::Stalled))),
            }
        }
    }
}

//! Bodies that pass through: nothing is collected, size and stalls are bounded.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::limits::BODY_STALL_MAX;
use crate::wire::Coming;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body is larger than allowed")]
    TooLarge,
    #[error("the body made no progress in {BODY_STALL_MAX:?}")]
    Stalled,
    #[error("the other side ended the body")]
    Broken(#[source] hyper::Error),
    #[error("the backend's answer broke off")]
    Cut(#[source] std::io::Error),
}

/// A body in transit, or one that is all here.
pub enum Body {
    Text(Option<Bytes>),
    Through(Through),
    /// Of an answer that no task of its own reads.
    Coming(Coming),
}

/// A body as it comes from the other side.
pub struct Through {
    inner: Incoming,
    /// Bytes that may still come.
    left: u64,
    stall_max: Duration,
    /// Made at the first wait: most bodies never wait.
    stall: Option<Pin<Box<Sleep>>>,
    stall_armed: bool,
    /// What ends with the body.
    _held: Option<Box<dyn std::any::Any>>,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Text(_)) { "Text" } else { "Through" })
    }
}

impl Body {
    pub fn empty() -> Self {
        Self::Text(None)
    }

    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::Text(Some(text.into()))
    }

    /// At most `bytes_max` bytes of a body (0: any number).
    pub fn through(inner: Incoming, bytes_max: u64) -> Self {
        let left = if bytes_max == 0 { u64::MAX } else { bytes_max };
        if inner.is_end_stream() {
            return Self::empty();
        }
        Self::Through(Through { inner, left, stall_max: BODY_STALL_MAX, stall: None, stall_armed: false, _held: None })
    }

    /// Keeps a value until the body ends.
    #[must_use]
    pub fn holding(mut self, value: impl std::any::Any) -> Self {
        if let Self::Through(through) = &mut self {
            through._held = Some(Box::new(value));
        }
        self
    }
}

impl Through {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.stall_armed = false;
                Poll::Ready(frame.map(|frame| self.admit(frame.map_err(BodyError::Broken)?)))
            }
            Poll::Pending => {
                let deadline = Instant::now() + self.stall_max;
                let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                if !self.stall_armed {
                    stall.as_mut().reset(deadline);
                    self.stall_armed = true;
                }
                stall.as_mut().poll(cx).map(|()| Some(Err(BodyError::Stalled)))
            }
        }
    }

    fn admit(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let size = frame.data_ref().map_or(0, Bytes::len) as u64;
        self.left = self.left.checked_sub(size).ok_or(BodyError::TooLarge)?;
        Ok(frame)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Through(through) => through.poll(cx),
            Self::Coming(coming) => coming.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Through(through) => through.inner.is_end_stream(),
            Self::Coming(coming) => coming.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Through(through) => through.inner.size_hint(),
            Self::Coming(coming) => coming.length().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

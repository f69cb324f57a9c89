//! Closing a connection so that its client can read the last answer, also while it is still sending.
//!
//! A socket that is closed with unread bytes resets the connection, and a reset throws away what the client has not read
//! yet: the very answer that says why its request was too large.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::limits::{LINGER_BYTES_MAX, LINGER_MAX};

/// A stream whose shutdown also reads, and drops, what its client sends until it hears of the end.
pub struct Lingering<S> {
    stream: S,
    /// Set once nothing more is written.
    closing: Option<Closing>,
}

struct Closing {
    end: Pin<Box<Sleep>>,
    bytes: usize,
}

impl<S> Lingering<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, closing: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        pin!(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        pin!(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            ready!(pin!(&mut this.stream).poll_shutdown(cx))?;
        }
        let closing =
            this.closing.get_or_insert_with(|| Closing { end: Box::pin(sleep(LINGER_MAX)), bytes: LINGER_BYTES_MAX });
        let mut sink = [MaybeUninit::uninit(); 8192];
        while closing.bytes > 0 && closing.end.as_mut().poll(cx).is_pending() {
            let mut sink = ReadBuf::uninit(&mut sink);
            match ready!(pin!(&mut this.stream).poll_read(cx, &mut sink)) {
                Ok(()) if !sink.filled().is_empty() => {
                    closing.bytes = closing.bytes.saturating_sub(sink.filled().len());
                }
                // The client is done, or gone: either way nobody waits for anything.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

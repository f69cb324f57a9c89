//! Connections that ceased to be HTTP (WebSocket and the like): bytes both ways until one side ends or nothing moves.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::limits::TUNNEL_IDLE_MAX;

/// Joins both sides once both have changed.
pub fn start(client: OnUpgrade, backend: OnUpgrade) {
    tokio::task::spawn_local(async move {
        let (client, backend) = match futures::try_join!(client, backend) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "an upgrade failed"),
        };
        let moved = Rc::new(Cell::new(Instant::now()));
        let mut client = Watched { io: TokioIo::new(client), moved: moved.clone() };
        let mut backend = Watched { io: TokioIo::new(backend), moved: moved.clone() };
        let idle = async {
            loop {
                let quiet = moved.get().elapsed();
                if quiet >= TUNNEL_IDLE_MAX {
                    return;
                }
                tokio::time::sleep(TUNNEL_IDLE_MAX - quiet).await;
            }
        };
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut backend) => {}
            () = idle => {}
        }
    });
}

/// Notes when bytes arrive.
struct Watched {
    io: TokioIo<Upgraded>,
    moved: Rc<Cell<Instant>>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if polled.is_ready() {
            self.moved.set(Instant::now());
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

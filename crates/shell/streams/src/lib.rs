//! Upgraded connections: splicing one to the next hop, and translating between WebSocket and SPDY.
//!
//! exec, attach and port-forward reach a container over two hops, API server to kubelet to container runtime. Each hop
//! that need not understand the bytes splices them ([`splice()`]). Only the kubelet translates, where a client speaks
//! WebSocket and the runtime's own WebSocket cannot do what is asked (end of standard input, protocol version 5): then
//! the runtime is spoken to in SPDY ([`spdy`]), which every version of it understands.

pub mod remote_command;
pub mod spdy;
pub mod splice;
pub mod tunnel;
pub mod websocket;

pub use splice::{AnyBody, Connection, empty, full, incoming, splice};

/// Why a stream could not be set up or went away.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("the request asks for no upgrade that is served here")]
    NoUpgrade,
    #[error("the next hop did not answer: {0}")]
    Hop(#[from] hyper::Error),
    #[error("the next hop answered {0} instead of switching protocols")]
    Refused(http::StatusCode),
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("the WebSocket broke: {0}")]
    WebSocket(#[from] tokio_tungstenite::tungstenite::Error),
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("a request could not be made: {0}")]
    Request(#[from] http::Error),
}

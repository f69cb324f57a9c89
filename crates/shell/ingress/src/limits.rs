//! Every bound of the proxy, in one place.

use std::time::Duration;

/// Threads that serve requests; never more than the machine has processors.
pub const WORKERS_MAX: usize = 8;
/// Open client connections of one worker; beyond it new ones are closed at once.
pub const CONNECTIONS_MAX: usize = 16_384;
/// What one worker takes even where the system allows few open files.
pub const CONNECTIONS_MIN: usize = 128;
/// Files that the rest of the program is left.
pub const FILES_FOR_OTHERS: usize = 2048;
/// Accepted connections that wait for their worker.
pub const ACCEPTED_WAITING_MAX: usize = 1024;
/// Request line and headers together; more is answered with 431.
pub const HEADERS_BYTES_MAX: usize = 64 << 10;
/// The same for what a backend answers; more is a bad gateway.
pub const ANSWER_HEADERS_BYTES_MAX: usize = 256 << 10;
pub const ANSWER_HEADERS_MAX: usize = 100;
/// What one read of an answer takes at most.
pub const ANSWER_READ_BYTES: usize = 64 << 10;
/// A client's request headers, from the first byte or from the end of the request before it.
pub const HEADERS_TIME_MAX: Duration = Duration::from_secs(60);
/// From the connection to its first byte.
pub const FIRST_BYTE_MAX: Duration = Duration::from_secs(60);
/// A client that still sends when its connection ends is listened to for so long, and so much, that it hears the end.
pub const LINGER_MAX: Duration = Duration::from_secs(2);
pub const LINGER_BYTES_MAX: usize = 8 << 20;
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The PROXY protocol header comes with the connection.
pub const PROXY_HEADER_MAX: Duration = Duration::from_secs(5);
/// Unacknowledged data makes a client a dead one after this.
pub const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(60);
/// Streams of one HTTP/2 client connection.
pub const STREAMS_MAX: u32 = 128;
/// A body that makes no progress for so long is given up.
pub const BODY_STALL_MAX: Duration = Duration::from_secs(60);
pub const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How often one request is tried, the first time included.
pub const ATTEMPTS_MAX: usize = 3;
/// A backend that refused is asked last for so long.
pub const BACKEND_REST: Duration = Duration::from_secs(1);
/// Idle connections kept to one address, by each worker.
pub const IDLE_PER_BACKEND_MAX: usize = 128;
/// Idle connections are closed after this; a little below what common servers allow.
pub const IDLE_MAX: Duration = Duration::from_secs(4);
/// An upgraded connection on which nothing moves.
pub const TUNNEL_IDLE_MAX: Duration = Duration::from_secs(3600);
/// How long a withdrawal waits for requests that chose their backend before it.
pub const DISPATCH_MAX: Duration = Duration::from_millis(250);
/// Open requests and connections may finish within this when a listener ends.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);
/// A port that could not be bound is tried again after this.
pub const BIND_RETRY: Duration = Duration::from_secs(10);
/// Secrets that are followed for certificates.
pub const CERTIFICATES_MAX: usize = 1024;

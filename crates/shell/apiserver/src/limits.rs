//! Every bound of the API server by name, with its unit and why it has that size.

use std::time::Duration;

/// Largest request body: upstream's limit for one object, with room for its JSON form.
pub const REQUEST_BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// What is read and dropped of a request body beyond the limit, so that the client gets to read why it was refused.
pub const DISCARDED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Requests served at once, divided among the priority levels; watches count until they begin, streams not at all.
pub const SEATS: usize = 600;
/// How long a request may wait for a seat before it is answered 429.
pub const FLOW_WAIT_MAX: Duration = Duration::from_secs(15);
/// What a 429 tells the client to wait.
pub const RETRY_AFTER_SECONDS: u32 = 1;
/// A request that is neither a watch nor a stream answers within this time.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a consistent read waits for the cache to reach the store.
pub const CACHE_WAIT_MAX: Duration = Duration::from_secs(3);
/// Events kept per resource for watches that start in the past.
pub const RING_EVENTS_MAX: usize = 16 * 1024;
/// Bytes of objects kept alive by the events of one resource.
pub const RING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Events waiting for one watcher; a watcher that lets more pile up is dropped.
pub const WATCHER_QUEUE_MAX: usize = 1024;
/// Snapshots kept per resource for the later pages of a list.
pub const PAGE_SNAPSHOTS_MAX: usize = 64;
/// How long a page's snapshot is kept: a continue token older than this is answered 410.
pub const PAGE_SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(300);
/// Time between two bookmarks of a watch that asked for them.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` ends after this time plus up to as much again, so that clients spread out.
pub const WATCH_TIME_MIN: Duration = Duration::from_secs(1800);
/// Attempts of a patch or an internal read-modify-write that lost a race.
pub const WRITE_RETRIES_MAX: usize = 16;
/// Attempts of a create whose generated name was taken.
pub const NAME_GENERATION_RETRIES_MAX: usize = 8;
/// Longest generated name base; five random characters follow.
pub const GENERATED_BASE_CHARS_MAX: usize = 58;
/// Objects deleted at once by one deletecollection.
pub const DELETE_COLLECTION_PARALLEL: usize = 16;
/// Pause before the store's watch is opened again after it broke.
pub const STORE_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long open connections may finish after shutdown was asked for.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Time for a TLS handshake.
pub const TLS_HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Total size of an object's annotations.
pub const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// Time one readiness check of the store may take.
pub const HEALTH_CHECK_MAX: Duration = Duration::from_secs(2);
/// Attempts to charge a quota that others change at the same time.
pub const QUOTA_RETRIES_MAX: usize = 32;
/// Queues in which writes to namespaces with quotas take turns.
pub const QUOTA_TURNS: usize = 64;
/// Largest answer of a webhook.
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Larger headers, which are those of very long selectors, are answered 431. A longer address has no form in this process.
pub const HEADERS_BYTES_MAX: u32 = 64 * 1024;
/// Requests and watches at a time on one connection (upstream: http2-max-streams-per-connection); clients open more.
pub const STREAMS_MAX: u32 = 250;

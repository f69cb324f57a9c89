//! The named bounds of the embedded engine.

use std::time::Duration;

/// Largest value, in bytes: etcd's default request limit, so that both engines refuse the same objects.
pub const VALUE_BYTES_MAX: usize = 1_536 * 1024;
/// Largest key, in bytes: a registry path with the longest namespace, name and resource fits several times.
pub const KEY_BYTES_MAX: usize = 2_048;
/// Writes that may wait for the writer; further callers wait for a place.
pub const QUEUED_WRITES_MAX: usize = 4_096;
/// Writes that share one commit.
pub const BATCH_WRITES_MAX: usize = 1_024;
/// Value bytes after which a commit takes no further write.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Events handed to a watcher at once.
pub const WATCH_BATCH_EVENTS_MAX: usize = 1_024;
/// Events a watcher looks through before it lets other tasks run.
pub const WATCH_SCAN_EVENTS_MAX: usize = 16_384;
/// Pause between attempts to open the disk again after a failed commit.
pub const REOPEN_PAUSE: Duration = Duration::from_millis(500);

const _: () = assert!(BATCH_WRITES_MAX <= QUEUED_WRITES_MAX);
const _: () = assert!(BATCH_BYTES_MAX >= VALUE_BYTES_MAX);
const _: () = assert!(WATCH_BATCH_EVENTS_MAX <= WATCH_SCAN_EVENTS_MAX);

/// What the engine keeps of the past. Whatever bound is met first drops the oldest events.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Events kept for watches and lists from old revisions.
    pub history_events_max: usize,
    /// Bytes of keys and of values held by these events (values that are still current count too).
    pub history_bytes_max: usize,
    /// Age at which an event is dropped when the next one is committed.
    pub history_age_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history_events_max: 100_000,
            history_bytes_max: 64 * 1024 * 1024,
            history_age_max: Duration::from_secs(10 * 60),
        }
    }
}

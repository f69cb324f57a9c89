//! What a store promises: one global revision, compare-and-swap writes that are durable when acknowledged, ordered watches.

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

/// A key with its value and the revisions of its creation and of its last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: u64,
    pub mod_revision: u64,
}

/// What the writer believes about the key; a write whose belief is wrong changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Revision(u64),
}

/// Keys in `[start, end)`, in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: Bytes,
    pub end: Bytes,
}

impl Range {
    /// All keys that begin with `prefix`, which may be empty.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start: Bytes = prefix.into();
        let mut end = start.to_vec();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        match end.last_mut() {
            Some(last) => *last += 1,
            // No key of a registry begins with this byte sequence, which is above every UTF-8 text.
            None => end = vec![0xff; 8],
        }
        Self { start, end: end.into() }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.start[..] <= *key && *key < self.end[..]
    }
}

/// Part of a range as it stood at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// The revision the whole page was read at.
    pub revision: u64,
    /// Whether keys of the range follow after the last entry.
    pub more: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// One committed change. Revisions rise by one per change and never repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    pub revision: u64,
    pub key: Bytes,
    /// The new value; for a deletion, empty.
    pub value: Bytes,
    /// The create revision of the key; for a deletion, 0.
    pub create_revision: u64,
}

/// Why a store said no. `is_retryable` tells whether the same call may succeed later.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The key is not as expected; carries the entry as it is now (None: absent).
    #[error("the key is not at the expected revision")]
    Conflict(Option<Entry>),
    /// The revision asked for is older than what is kept.
    #[error("revision {asked} was compacted; the oldest kept is {oldest}")]
    Compacted { asked: u64, oldest: u64 },
    /// Value or key above the engine's limit.
    #[error("the value of {size} bytes is above the limit of {max}")]
    TooLarge { size: usize, max: usize },
    /// The engine cannot be reached or cannot write now; nothing is known to be lost.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What was read back is not what was written.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
}

impl StoreError {
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

pub type StoreResult<T> = Result<T, StoreError>;

/// Events in revision order, in batches that were committed together. Ends with an error when the watcher fell behind
/// what is kept (`Compacted`) or the engine went away (`Unavailable`); a new list and watch is the way on.
pub type WatchStream = Pin<Box<dyn Stream<Item = StoreResult<Vec<Event>>> + Send>>;

/// A durable map with one global revision. All methods are linearizable.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The entry of a key with the store's revision at the time of reading.
    async fn get(&self, key: &[u8]) -> StoreResult<(Option<Entry>, u64)>;

    /// Up to `limit` entries of a range (0: all), read at `revision` (None: now).
    async fn list(&self, range: Range, limit: usize, revision: Option<u64>) -> StoreResult<Page>;

    /// Writes if the key is as expected; answers the new revision. Durable when this returns.
    async fn put(&self, key: Bytes, value: Bytes, expect: Expect) -> StoreResult<u64>;

    /// Deletes if the key is at this revision; answers the revision of the deletion. Durable when this returns.
    async fn delete(&self, key: Bytes, revision: u64) -> StoreResult<u64>;

    /// Every change in the range with a revision above `after`.
    async fn watch(&self, range: Range, after: u64) -> StoreResult<WatchStream>;

    /// The revision of the last acknowledged write.
    async fn revision(&self) -> StoreResult<u64>;

    /// Forgets what is older than `revision`: lists and watches from before it answer `Compacted`.
    async fn compact(&self, revision: u64) -> StoreResult<()>;
}

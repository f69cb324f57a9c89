//! The embedded engine: one process owns a directory, one writer commits in groups, readers use the state in memory.
//!
//! Why so: the API server reads far more than it writes and holds its objects in memory anyway, so the disk is only a
//! log of the truth. An acknowledged write was synced; a crash loses at most writes nobody was told of, whole batches at
//! a time. History lives in memory only: after a restart watches and lists from older revisions answer `Compacted`.

mod directory;
mod disk;
pub mod limits;
mod memory;
mod watch;
mod writer;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use self::directory::Directory;
use self::disk::Disk;
use self::limits::{KEY_BYTES_MAX, QUEUED_WRITES_MAX, VALUE_BYTES_MAX};
use self::memory::Memory;
use self::writer::{Write, Writer};
use crate::contract::{Entry, Expect, Page, Range, Store, StoreError, StoreResult, WatchStream};

pub use self::limits::Options;

/// A store in a directory of this machine. Dropping it waits for writes in progress and frees the directory.
pub struct Embedded {
    memory: Arc<RwLock<Memory>>,
    committed: tokio::sync::watch::Receiver<u64>,
    queue: Option<mpsc::Sender<Write>>,
    writer: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Opens or makes the store. Reads every entry, so call it where blocking is fine.
    ///
    /// # Errors
    /// `Unavailable` when the directory cannot be written or another process owns it; `Corrupt` when its content is not
    /// what was written or of an unknown format.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> StoreResult<Self> {
        let directory = Directory::open(directory.as_ref())?;
        let disk = Disk::open(&directory.database())?;
        let revision = disk.revision()?;
        let memory = Arc::new(RwLock::new(Memory::new(disk.load()?, revision, options)));
        let (committed, committed_receiver) = tokio::sync::watch::channel(revision);
        let (queue, writes) = mpsc::channel(QUEUED_WRITES_MAX);
        let writer = Writer {
            directory,
            disk: Some(disk),
            memory: memory.clone(),
            committed,
            in_doubt: None,
            last_reopen: None,
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(writes))
            .map_err(|e| StoreError::Unavailable(format!("cannot start the writer: {e}")))?;
        Ok(Self { memory, committed: committed_receiver, queue: Some(queue), writer: Some(writer) })
    }

    fn read<T>(&self, f: impl FnOnce(&Memory) -> T) -> T {
        f(&self.memory.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn write(&self, key: Bytes, value: Option<Bytes>, expect: Expect) -> StoreResult<u64> {
        check_size(key.len(), KEY_BYTES_MAX)?;
        check_size(value.as_ref().map_or(0, Bytes::len), VALUE_BYTES_MAX)?;
        let stopped = || StoreError::Unavailable("the writer has stopped".to_owned());
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(Write { key, value, expect, answer }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

fn check_size(size: usize, max: usize) -> StoreResult<()> {
    if size > max { Err(StoreError::TooLarge { size, max }) } else { Ok(()) }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &[u8]) -> StoreResult<(Option<Entry>, u64)> {
        Ok(self.read(|memory| (memory.current.get(key).map(|entry| entry.as_ref().clone()), memory.revision)))
    }

    async fn list(&self, range: Range, limit: usize, revision: Option<u64>) -> StoreResult<Page> {
        let view = self.read(|memory| memory.view(&range, revision))?;
        Ok(view.page(&range, limit))
    }

    async fn put(&self, key: Bytes, value: Bytes, expect: Expect) -> StoreResult<u64> {
        self.write(key, Some(value), expect).await
    }

    async fn delete(&self, key: Bytes, revision: u64) -> StoreResult<u64> {
        self.write(key, None, Expect::Revision(revision)).await
    }

    async fn watch(&self, range: Range, after: u64) -> StoreResult<WatchStream> {
        watch::watch(self.memory.clone(), self.committed.clone(), range, after)
    }

    async fn revision(&self) -> StoreResult<u64> {
        Ok(self.read(|memory| memory.revision))
    }

    async fn compact(&self, revision: u64) -> StoreResult<()> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner).compact(revision);
        Ok(())
    }
}

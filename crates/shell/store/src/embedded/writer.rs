//! The one writer: takes what waits in the queue, checks it against the newest state, commits it as one synced batch,
//! publishes the batch to readers and watchers, and only then answers.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use super::directory::Directory;
use super::disk::Disk;
use super::limits::{BATCH_BYTES_MAX, BATCH_WRITES_MAX, REOPEN_PAUSE};
use super::memory::{Change, Current, Memory, apply};
use crate::contract::{Event, EventKind, Expect, StoreError, StoreResult};

/// A change wanted by a caller; `None` as value deletes.
pub struct Write {
    pub key: Bytes,
    pub value: Option<Bytes>,
    pub expect: Expect,
    pub answer: oneshot::Sender<StoreResult<u64>>,
}

pub struct Writer {
    pub directory: Directory,
    pub disk: Option<Disk>,
    pub memory: Arc<RwLock<Memory>>,
    pub committed: watch::Sender<u64>,
    /// A batch whose commit failed: the disk tells after reopening whether it happened.
    pub in_doubt: Option<(Current, Vec<Change>)>,
    pub last_reopen: Option<Instant>,
}

impl Writer {
    /// Runs until every sender is gone.
    pub fn run(mut self, mut queue: mpsc::Receiver<Write>) {
        let mut writes = Vec::new();
        while let Some(first) = queue.blocking_recv() {
            let mut bytes = first.value.as_ref().map_or(0, Bytes::len);
            writes.push(first);
            while writes.len() < BATCH_WRITES_MAX && bytes < BATCH_BYTES_MAX {
                let Ok(next) = queue.try_recv() else { break };
                bytes += next.value.as_ref().map_or(0, Bytes::len);
                writes.push(next);
            }
            self.commit(&mut writes);
        }
    }

    /// Answers every write of the batch. Refusals wait for the commit too: they may rest on changes of the same batch.
    fn commit(&mut self, writes: &mut Vec<Write>) {
        if let Err(error) = self.ready() {
            return refuse(writes, &error);
        }
        let Some(disk) = &self.disk else { return refuse(writes, &StoreError::Unavailable("disk closed".to_owned())) };
        let (mut current, mut revision) = {
            let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
            (memory.current.clone(), memory.revision)
        };
        let mut changes = Vec::with_capacity(writes.len());
        let mut answers = Vec::with_capacity(writes.len());
        for Write { key, value, expect, answer } in writes.drain(..) {
            // A caller that went away before its turn wants nothing any more.
            if answer.is_closed() {
                continue;
            }
            let result = decide(&current, key, value, expect, revision + 1).map(|event| {
                revision = event.revision;
                changes.push(apply(&mut current, event));
                revision
            });
            answers.push((answer, result));
        }
        if let Err(error) = disk.commit(&changes) {
            tracing::error!(%error, "a commit failed; the disk is opened again before the next one");
            self.disk = None;
            self.in_doubt = Some((current, changes));
            for (answer, _) in answers {
                let _ = answer.send(Err(copy(&error)));
            }
            return;
        }
        if !changes.is_empty() {
            self.publish(current, changes);
        }
        for (answer, result) in answers {
            let _ = answer.send(result);
        }
    }

    fn publish(&self, current: Current, changes: Vec<Change>) {
        let revision = {
            let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
            memory.publish(current, changes, Instant::now());
            memory.revision
        };
        self.committed.send_replace(revision);
    }

    /// Opens the disk again after a failed commit and finds out whether that commit happened.
    fn ready(&mut self) -> StoreResult<()> {
        if self.disk.is_some() {
            return Ok(());
        }
        if self.last_reopen.is_some_and(|at| at.elapsed() < REOPEN_PAUSE) {
            return Err(StoreError::Unavailable("the last commit failed; the disk is tried again shortly".to_owned()));
        }
        self.last_reopen = Some(Instant::now());
        let disk = Disk::open(&self.directory.database())?;
        let found = disk.revision()?;
        disk.settle()?;
        let known = self.memory.read().unwrap_or_else(PoisonError::into_inner).revision;
        let doubted = self.in_doubt.as_ref().and_then(|(_, changes)| changes.last()).map(|last| last.event.revision);
        if found != known && Some(found) != doubted {
            return Err(StoreError::Corrupt(format!("the disk is at revision {found}, the store at {known}")));
        }
        if let Some((current, changes)) = self.in_doubt.take()
            && found != known
        {
            self.publish(current, changes);
        }
        tracing::info!(revision = found, "the disk takes writes again");
        self.disk = Some(disk);
        Ok(())
    }
}

fn decide(current: &Current, key: Bytes, value: Option<Bytes>, expect: Expect, revision: u64) -> StoreResult<Event> {
    let now = current.get(&key);
    let as_expected = match (expect, now) {
        (Expect::Absent, None) => true,
        (Expect::Revision(expected), Some(entry)) => entry.mod_revision == expected,
        _ => false,
    };
    if !as_expected {
        return Err(StoreError::Conflict(now.map(|entry| entry.as_ref().clone())));
    }
    Ok(match value {
        Some(value) => {
            let create_revision = now.map_or(revision, |entry| entry.create_revision);
            Event { kind: EventKind::Put, revision, key, value, create_revision }
        }
        None => Event { kind: EventKind::Delete, revision, key, value: Bytes::new(), create_revision: 0 },
    })
}

fn refuse(writes: &mut Vec<Write>, error: &StoreError) {
    for write in writes.drain(..) {
        let _ = write.answer.send(Err(copy(error)));
    }
}

/// The same disk error for every write of a batch.
fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Corrupt(why) => StoreError::Corrupt(why.clone()),
        StoreError::Unavailable(why) => StoreError::Unavailable(why.clone()),
        other => StoreError::Unavailable(other.to_string()),
    }
}

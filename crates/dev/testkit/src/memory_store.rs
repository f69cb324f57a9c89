//! A store in memory with the contract of the durable ones, for tests that need no disk.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use store::contract::{Entry, Event, EventKind, Expect, Page, Range, Store, StoreError, StoreResult, WatchStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

#[derive(Default)]
pub struct MemoryStore(Mutex<State>);

#[derive(Default)]
struct State {
    revision: u64,
    entries: BTreeMap<Bytes, Entry>,
    log: Vec<Event>,
    compacted: u64,
    watchers: Vec<(Range, mpsc::UnboundedSender<StoreResult<Vec<Event>>>)>,
}

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn contains(range: &Range, key: &[u8]) -> bool {
    range.start.as_ref() <= key && key < range.end.as_ref()
}

impl State {
    fn commit(&mut self, kind: EventKind, key: Bytes, value: Bytes, create_revision: u64) -> u64 {
        self.revision += 1;
        let event = Event { kind, revision: self.revision, key, value, create_revision };
        self.watchers.retain(|(range, sender)| {
            !sender.is_closed() && (!contains(range, &event.key) || sender.send(Ok(vec![event.clone()])).is_ok())
        });
        self.log.push(event);
        self.revision
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &[u8]) -> StoreResult<(Option<Entry>, u64)> {
        let state = self.state();
        Ok((state.entries.get(key).cloned(), state.revision))
    }

    async fn list(&self, range: Range, limit: usize, revision: Option<u64>) -> StoreResult<Page> {
        let state = self.state();
        if let Some(asked) = revision.filter(|asked| *asked < state.revision) {
            return Err(StoreError::Compacted { asked, oldest: state.revision });
        }
        let mut found = state.entries.range(range.start..range.end).map(|(_, entry)| entry.clone());
        let entries = found.by_ref().take(if limit == 0 { usize::MAX } else { limit }).collect();
        Ok(Page { entries, revision: state.revision, more: found.next().is_some() })
    }

    async fn put(&self, key: Bytes, value: Bytes, expect: Expect) -> StoreResult<u64> {
        let mut state = self.state();
        let now = state.entries.get(&key).cloned();
        let create_revision = match (expect, &now) {
            (Expect::Absent, None) => state.revision + 1,
            (Expect::Revision(revision), Some(entry)) if entry.mod_revision == revision => entry.create_revision,
            _ => return Err(StoreError::Conflict(now)),
        };
        let revision = state.commit(EventKind::Put, key.clone(), value.clone(), create_revision);
        state.entries.insert(key.clone(), Entry { key, value, create_revision, mod_revision: revision });
        Ok(revision)
    }

    async fn delete(&self, key: Bytes, revision: u64) -> StoreResult<u64> {
        let mut state = self.state();
        match state.entries.get(&key) {
            Some(entry) if entry.mod_revision == revision => {}
            other => return Err(StoreError::Conflict(other.cloned())),
        }
        state.entries.remove(&key);
        Ok(state.commit(EventKind::Delete, key, Bytes::new(), 0))
    }

    async fn watch(&self, range: Range, after: u64) -> StoreResult<WatchStream> {
        let mut state = self.state();
        if after < state.compacted {
            return Err(StoreError::Compacted { asked: after, oldest: state.compacted });
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let missed = state.log.iter().filter(|event| event.revision > after && contains(&range, &event.key));
        let missed: Vec<Event> = missed.cloned().collect();
        if !missed.is_empty() {
            let _receiver_is_here = sender.send(Ok(missed));
        }
        state.watchers.push((range, sender));
        Ok(UnboundedReceiverStream::new(receiver).boxed())
    }

    async fn revision(&self) -> StoreResult<u64> {
        Ok(self.state().revision)
    }

    async fn compact(&self, revision: u64) -> StoreResult<()> {
        let mut state = self.state();
        state.compacted = state.compacted.max(revision);
        state.log.retain(|event| event.revision > revision);
        Ok(())
    }
}

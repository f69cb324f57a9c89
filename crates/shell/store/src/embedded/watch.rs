//! A watch is a cursor into the committed history: watchers hold no queue, and one that falls behind what is kept ends.

use std::sync::{Arc, PoisonError, RwLock};

use futures::stream;
use tokio::sync::watch;

use super::limits::{WATCH_BATCH_EVENTS_MAX, WATCH_SCAN_EVENTS_MAX};
use super::memory::Memory;
use crate::contract::{Event, Range, StoreError, StoreResult, WatchStream};

struct Cursor {
    memory: Arc<RwLock<Memory>>,
    committed: watch::Receiver<u64>,
    range: Range,
    after: u64,
    ended: bool,
}

/// Streams the changes of `range` after a revision. Fails at once when that revision was compacted.
pub fn watch(
    memory: Arc<RwLock<Memory>>,
    committed: watch::Receiver<u64>,
    range: Range,
    after: u64,
) -> StoreResult<WatchStream> {
    memory.read().unwrap_or_else(PoisonError::into_inner).changes_after(after).map(drop)?;
    let cursor = Cursor { memory, committed, range, after, ended: false };
    Ok(Box::pin(stream::unfold(cursor, |mut cursor| async move {
        let item = cursor.next().await?;
        cursor.ended = item.is_err();
        Some((item, cursor))
    })))
}

impl Cursor {
    async fn next(&mut self) -> Option<StoreResult<Vec<Event>>> {
        if self.ended {
            return None;
        }
        loop {
            // Marked as seen before looking, so that a commit in between wakes us again.
            let revision = *self.committed.borrow_and_update();
            match self.collect() {
                Ok(events) if !events.is_empty() => return Some(Ok(events)),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            if self.after < revision {
                tokio::task::yield_now().await;
            } else if self.committed.changed().await.is_err() {
                return Some(Err(StoreError::Unavailable("the store was closed".to_owned())));
            }
        }
    }

    /// Moves the cursor over a bounded stretch of history and takes what lies in the range.
    fn collect(&mut self) -> StoreResult<Vec<Event>> {
        let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
        let mut events = Vec::new();
        for change in memory.changes_after(self.after)?.take(WATCH_SCAN_EVENTS_MAX) {
            self.after = change.event.revision;
            if self.range.contains(&change.event.key) {
                events.push(change.event.clone());
                if events.len() == WATCH_BATCH_EVENTS_MAX {
                    break;
                }
            }
        }
        Ok(events)
    }
}

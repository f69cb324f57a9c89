//! The state readers see: the current entries in a persistent map, and a bounded ring of the events that led to them.
//!
//! A list at an old revision is the current map with the events after that revision undone, so old snapshots cost no
//! memory beyond the ring. Reading takes an O(1) copy of the map; a reader never holds up the writer.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use imbl::OrdMap;

use super::limits::Options;
use crate::contract::{Entry, Event, EventKind, Page, Range, StoreError, StoreResult};

pub type Current = OrdMap<Bytes, Arc<Entry>>;

/// A committed event with what it replaced, so that it can be undone.
#[derive(Clone, Debug)]
pub struct Change {
    pub event: Event,
    pub previous: Option<Arc<Entry>>,
}

impl Change {
    fn bytes(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |entry| entry.value.len());
        self.event.key.len() + self.event.value.len() + previous
    }
}

/// Entries and recent history as of one revision.
pub struct Memory {
    pub current: Current,
    /// The revision of the last committed change.
    pub revision: u64,
    /// The oldest revision whose state can still be told.
    compacted: u64,
    history: VecDeque<(Instant, Change)>,
    history_bytes: usize,
    options: Options,
}

impl Memory {
    pub fn new(current: Current, revision: u64, options: Options) -> Self {
        Self { current, revision, compacted: revision, history: VecDeque::new(), history_bytes: 0, options }
    }

    /// Takes over what was committed. `changes` continue the revision without a gap.
    pub fn publish(&mut self, current: Current, changes: Vec<Change>, now: Instant) {
        for change in changes {
            assert_eq!(change.event.revision, self.revision + 1, "revisions rise by one");
            self.revision = change.event.revision;
            self.history_bytes += change.bytes();
            self.history.push_back((now, change));
        }
        self.current = current;
        while self.history.len() > self.options.history_events_max
            || self.history_bytes > self.options.history_bytes_max
            || self.history.front().is_some_and(|(at, _)| now.duration_since(*at) > self.options.history_age_max)
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, change)) = self.history.pop_front() {
            self.history_bytes -= change.bytes();
            self.compacted = change.event.revision;
        }
    }

    /// Forgets what is older than `revision` (at most the current one).
    pub fn compact(&mut self, revision: u64) {
        let revision = revision.min(self.revision);
        while self.history.front().is_some_and(|(_, change)| change.event.revision <= revision) {
            self.drop_oldest();
        }
    }

    fn check(&self, asked: u64) -> StoreResult<()> {
        if asked < self.compacted {
            return Err(StoreError::Compacted { asked, oldest: self.compacted });
        }
        Ok(())
    }

    /// The changes with a revision above `after`, oldest first.
    pub fn changes_after(&self, after: u64) -> StoreResult<impl DoubleEndedIterator<Item = &Change>> {
        self.check(after)?;
        let first = self.history.partition_point(|(_, change)| change.event.revision <= after);
        Ok(self.history.range(first..).map(|(_, change)| change))
    }

    /// What has to be read for a list at `revision`: the map of now and the entries of the range that differ from it.
    pub fn view(&self, range: &Range, revision: Option<u64>) -> StoreResult<View> {
        let revision = revision.unwrap_or(self.revision);
        if revision > self.revision {
            let now = self.revision;
            return Err(StoreError::Unavailable(format!(
                "revision {revision} is in the future, the store is at {now}"
            )));
        }
        let mut undone = BTreeMap::new();
        for change in self.changes_after(revision)?.rev() {
            if range.contains(&change.event.key) {
                undone.insert(change.event.key.clone(), change.previous.clone());
            }
        }
        Ok(View { current: self.current.clone(), undone, revision })
    }
}

/// A consistent state at one revision, independent of later writes.
pub struct View {
    current: Current,
    undone: BTreeMap<Bytes, Option<Arc<Entry>>>,
    revision: u64,
}

impl View {
    /// Up to `limit` entries (0: all) of the range the view was made for.
    pub fn page(self, range: &Range, limit: usize) -> Page {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let mut entries = Vec::new();
        if range.start >= range.end {
            return Page { entries, revision: self.revision, more: false };
        }
        let bounds = (Bound::Included(&range.start), Bound::Excluded(&range.end));
        let unchanged = self.current.range::<_, Bytes>(bounds).filter(|(key, _)| !self.undone.contains_key(*key));
        let mut unchanged = unchanged.map(|(_, entry)| entry).peekable();
        let mut older = self.undone.values().flatten().peekable();
        loop {
            let take_older = match (unchanged.peek(), older.peek()) {
                (None, None) => return Page { entries, revision: self.revision, more: false },
                (Some(now), Some(then)) => then.key < now.key,
                (now, _) => now.is_none(),
            };
            if entries.len() == limit {
                return Page { entries, revision: self.revision, more: true };
            }
            let next = if take_older { older.next() } else { unchanged.next() };
            entries.extend(next.map(|entry| Entry::clone(entry)));
        }
    }
}

/// The map after `event`, with the change that undoes it.
pub fn apply(current: &mut Current, event: Event) -> Change {
    let previous = match event.kind {
        EventKind::Delete => current.remove(&event.key),
        EventKind::Put => {
            let entry = Entry {
                key: event.key.clone(),
                value: event.value.clone(),
                create_revision: event.create_revision,
                mod_revision: event.revision,
            };
            current.insert(event.key.clone(), Arc::new(entry))
        }
    };
    Change { event, previous }
}

//! A keyed work queue: duplicates collapse, a key is never worked on twice at once, failures back off per key.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backoff::exponential;

/// Delays of a queue.
#[derive(Clone, Debug)]
pub struct QueueConfig {
    /// The first delay after a failure of a key.
    pub retry_min: Duration,
    /// The longest delay between tries of a key.
    pub retry_max: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { retry_min: Duration::from_millis(5), retry_max: Duration::from_secs(300) }
    }
}

struct State<K> {
    ready: VecDeque<K>,
    /// Keys waiting in `ready`, or to be put there when their worker is done.
    dirty: HashSet<K>,
    processing: HashSet<K>,
    delayed: BTreeMap<(Instant, u64), K>,
    /// The earliest delayed entry per key: a key waits at most once.
    deadlines: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
    closed: bool,
}

struct Inner<K> {
    state: Mutex<State<K>>,
    wake: Notify,
    config: QueueConfig,
}

/// A handle on the queue; clones share it. Memory is bounded by the number of distinct keys.
pub struct Queue<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K: Clone + Eq + Hash> Default for Queue<K> {
    fn default() -> Self {
        Self::new(QueueConfig::default())
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub fn new(config: QueueConfig) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            delayed: BTreeMap::new(),
            deadlines: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            closed: false,
        };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), wake: Notify::new(), config }) }
    }

    /// Asks for the key to be worked on soon.
    pub fn add(&self, key: K) {
        let mut state = self.lock();
        if state.make_ready(key) {
            drop(state);
            self.inner.wake.notify_one();
        }
    }

    /// Asks for the key to be worked on in `delay`, unless it already waits for an earlier time.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let due = Instant::now() + delay;
        if let Some(known) = state.deadlines.get(&key).copied() {
            if known.0 <= due {
                return;
            }
            state.delayed.remove(&known);
        }
        state.sequence += 1;
        let entry = (due, state.sequence);
        state.deadlines.insert(key.clone(), entry);
        state.delayed.insert(entry, key);
        drop(state);
        // A sleeping worker has to look at the new earliest deadline.
        self.inner.wake.notify_one();
    }

    /// Asks for the key again after a failure, later with each retry that failed in a row. An attempt that a change
    /// brought before its time does not count: busy objects would wait longer for nothing but their being busy.
    pub fn retry(&self, key: K) -> Duration {
        let delay = {
            let mut state = self.lock();
            let pending = state.deadlines.get(&key).map(|(due, _)| due.saturating_duration_since(Instant::now()));
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let delay = exponential(self.inner.config.retry_min, self.inner.config.retry_max, *failures);
            if let Some(pending) = pending.filter(|pending| *pending <= delay) {
                return pending;
            }
            *failures = failures.saturating_add(1);
            delay
        };
        self.add_after(key, delay);
        delay
    }

    /// The key succeeded: its next failure starts from the shortest delay.
    pub fn forget(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    /// The next key to work on, held by the caller until [`Queue::done`]; `None` after shutdown.
    pub async fn next(&self) -> Option<K> {
        loop {
            let deadline = {
                let mut state = self.lock();
                state.promote(Instant::now());
                if state.closed {
                    self.inner.wake.notify_one();
                    return None;
                }
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.processing.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.inner.wake.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.first_key_value().map(|((due, _), _)| *due)
            };
            match deadline {
                // A permit left by `notify_one` makes this return at once, so no wake-up is lost in between.
                None => self.inner.wake.notified().await,
                Some(due) => {
                    let _ = tokio::time::timeout_at(due, self.inner.wake.notified()).await;
                }
            }
        }
    }

    /// Ends the work on a key; if it was added meanwhile, it is ready again.
    pub fn done(&self, key: &K) {
        let mut state = self.lock();
        state.processing.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.inner.wake.notify_one();
        }
    }

    /// Ends every `next`, now and later. Keys in work stay with their workers.
    pub fn shutdown(&self) {
        self.lock().closed = true;
        // Each waiter that ends passes the word on through `next`; this wakes those waiting now, and one that comes.
        self.inner.wake.notify_waiters();
        self.inner.wake.notify_one();
    }

    /// Keys ready to be worked on.
    pub fn len(&self) -> usize {
        self.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<K>> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Marks the key dirty; true when it became ready.
    fn make_ready(&mut self, key: K) -> bool {
        if self.closed || !self.dirty.insert(key.clone()) {
            return false;
        }
        if self.processing.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.deadlines.remove(&key);
            self.make_ready(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_next(queue: &Queue<&'static str>) -> Option<&'static str> {
        use futures::FutureExt;
        queue.next().now_or_never().flatten()
    }

    #[tokio::test(start_paused = true)]
    async fn duplicates_collapse_and_a_key_in_work_waits() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, Some("a"));
        queue.add("a");
        assert_eq!(queue.next().await, Some("b"));
        assert_eq!(try_next(&queue), None);
        queue.done(&"a");
        assert_eq!(try_next(&queue), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_deadline_wins() {
        let queue = Queue::default();
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(5));
        let start = Instant::now();
        assert_eq!(queue.next().await, Some("a"));
        assert_eq!(start.elapsed().as_secs(), 2);
        queue.done(&"a");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(try_next(&queue), None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_until_forgotten() {
        let config = QueueConfig { retry_min: Duration::from_secs(1), retry_max: Duration::from_secs(3) };
        let queue = Queue::new(config);
        for wanted in [1, 2, 3, 3] {
            assert_eq!(queue.retry("a").as_secs(), wanted);
            assert_eq!(queue.retry("a").as_secs(), wanted, "an attempt before its time changes nothing");
            assert_eq!(queue.next().await, Some("a"));
            queue.done(&"a");
        }
        queue.forget(&"a");
        assert_eq!(queue.retry("a").as_secs(), 1);
    }

    #[tokio::test]
    async fn shutdown_ends_every_worker() {
        let queue: Queue<&str> = Queue::default();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.shutdown();
        for worker in workers {
            assert_eq!(tokio::time::timeout(Duration::from_secs(5), worker).await.unwrap().unwrap(), None);
        }
    }
}

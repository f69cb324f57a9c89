//! The keys of one controller that wait for work: at once, or for their time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The delays of the shell's queues.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Queue {
    due: BTreeSet<String>,
    later: BTreeMap<String, Timestamp>,
    failures: BTreeMap<String, u32>,
}

impl Queue {
    pub fn add(&mut self, key: &str) {
        self.due.insert(key.to_owned());
    }

    /// Wakes the key then, unless it waits for an earlier time.
    pub fn add_after(&mut self, key: &str, delay: Duration, now: Timestamp) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = now + SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
        let known = self.later.entry(key.to_owned()).or_insert(at);
        *known = at.min(*known);
    }

    /// Wakes the key later with each failure in a row.
    pub fn retry(&mut self, key: &str, now: Timestamp) {
        let failures = self.failures.entry(key.to_owned()).or_insert(0);
        let delay = (RETRY_MIN * 2_u32.pow((*failures).min(12))).min(RETRY_MAX);
        *failures += 1;
        self.add_after(key, delay, now);
    }

    pub fn forget(&mut self, key: &str) {
        self.failures.remove(key);
    }

    /// Moves what waited for its time.
    pub fn tick(&mut self, now: Timestamp) {
        let due = &mut self.due;
        self.later.retain(|key, at| {
            let waits = *at > now;
            if !waits {
                due.insert(key.clone());
            }
            waits
        });
    }

    /// The `choice`th of the keys that are due, modulo their number.
    pub fn take(&mut self, choice: usize) -> Option<String> {
        let key = self.due.iter().nth(choice % self.due.len().max(1))?.clone();
        self.due.remove(&key);
        Some(key)
    }

    pub fn due(&self) -> usize {
        self.due.len()
    }

    pub fn next(&self) -> Option<Timestamp> {
        self.later.values().min().copied()
    }
}

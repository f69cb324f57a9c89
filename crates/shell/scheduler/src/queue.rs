//! Pods that wait for a node: active by priority and age, in backoff, or unschedulable until something changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use client::ObjectKey;

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod waits at most this long for an event that may cure it.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(5 * 60);

/// What changed in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    NodeChanged,
    PodAssigned,
    PodGone,
    NamespaceChanged,
    /// A claim, volume, class or limit.
    StorageChanged,
}

impl Cause {
    /// Whether a pod that a plugin rejected may fit after this.
    fn may_cure(self, plugin: &str) -> bool {
        match self {
            Self::NodeChanged => true,
            Self::PodAssigned | Self::NamespaceChanged => matches!(plugin, "PodTopologySpread" | "InterPodAffinity"),
            Self::StorageChanged => {
                matches!(plugin, "VolumeBinding" | "VolumeZone" | "VolumeRestrictions" | "NodeVolumeLimits")
            }
            Self::PodGone => matches!(
                plugin,
                "NodeResourcesFit"
                    | "NodePorts"
                    | "PodTopologySpread"
                    | "InterPodAffinity"
                    | "VolumeRestrictions"
                    | "NodeVolumeLimits"
            ),
        }
    }
}

/// Higher priority first, then older first.
type Rank = (Reverse<i32>, i64, String, String);

enum Place {
    Active(Rank),
    Backoff(Instant),
    Unschedulable {
        plugins: Vec<&'static str>,
        since: Instant,
    },
    /// Taken by `pop`; its outcome is awaited.
    InFlight,
}

struct Waiting {
    place: Place,
    priority: i32,
    created: i64,
    attempts: u32,
    /// When its backoff ends, wherever it waits.
    not_before: Instant,
}

/// Holds each pod once; bounded by the number of pods in the cluster.
#[derive(Default)]
pub struct Queue {
    pods: HashMap<ObjectKey, Waiting>,
    active: BTreeMap<Rank, ObjectKey>,
    backoff: BTreeSet<(Instant, String, String)>,
}

impl Queue {
    /// Takes a new or changed pod in; a changed one is tried again.
    pub fn add(&mut self, key: &ObjectKey, priority: i32, created: i64, now: Instant) {
        let waiting = self.pods.remove(key);
        let (attempts, not_before) =
            waiting.as_ref().map_or((0, now), |waiting| (waiting.attempts, waiting.not_before));
        if let Some(waiting) = waiting {
            if matches!(waiting.place, Place::InFlight) {
                self.pods.insert(key.clone(), Waiting { priority, created, ..waiting });
                return;
            }
            self.unlink(key, &waiting.place);
        }
        let place = Place::InFlight;
        self.pods.insert(key.clone(), Waiting { place, priority, created, attempts, not_before });
        self.ready(key, now);
    }

    pub fn remove(&mut self, key: &ObjectKey) {
        if let Some(waiting) = self.pods.remove(key) {
            self.unlink(key, &waiting.place);
        }
    }

    pub fn pop(&mut self) -> Option<ObjectKey> {
        let (_, key) = self.active.pop_first()?;
        if let Some(waiting) = self.pods.get_mut(&key) {
            waiting.place = Place::InFlight;
            waiting.attempts += 1;
        }
        Some(key)
    }

    /// The popped pod found no node.
    pub fn unschedulable(&mut self, key: &ObjectKey, plugins: Vec<&'static str>, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.not_before = now + backoff(waiting.attempts);
            waiting.place = Place::Unschedulable { plugins, since: now };
        }
    }

    /// The popped pod could not be bound.
    pub fn failed(&mut self, key: &ObjectKey, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.not_before = now + backoff(waiting.attempts);
            self.ready(key, now);
        }
    }

    /// A pod that waits for a change is tried again when its backoff is over.
    pub fn again(&mut self, key: &ObjectKey, now: Instant) {
        if self.pods.get(key).is_some_and(|waiting| matches!(waiting.place, Place::Unschedulable { .. })) {
            self.ready(key, now);
        }
    }

    /// Moves pods that `cause` may cure.
    pub fn happened(&mut self, cause: Cause, now: Instant) {
        self.release(now, |plugins, _| plugins.is_empty() || plugins.iter().any(|plugin| cause.may_cure(plugin)));
    }

    /// Moves pods whose time has come.
    pub fn tick(&mut self, now: Instant) {
        while let Some((at, namespace, name)) = self.backoff.first().cloned() {
            if at > now {
                break;
            }
            self.backoff.pop_first();
            self.ready(&ObjectKey::new(namespace, name), now);
        }
        self.release(now, |_, since| now.duration_since(since) >= UNSCHEDULABLE_MAX);
    }

    /// When `tick` has something to do.
    pub fn next_tick(&self) -> Option<Instant> {
        let unschedulable = self.pods.values().filter_map(|waiting| match waiting.place {
            Place::Unschedulable { since, .. } => Some(since + UNSCHEDULABLE_MAX),
            _ => None,
        });
        self.backoff.first().map(|(at, ..)| *at).into_iter().chain(unschedulable.min()).min()
    }

    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    fn release(&mut self, now: Instant, may_go: impl Fn(&[&'static str], Instant) -> bool) {
        let going: Vec<ObjectKey> = self
            .pods
            .iter()
            .filter_map(|(key, waiting)| match &waiting.place {
                Place::Unschedulable { plugins, since } if may_go(plugins, *since) => Some(key.clone()),
                _ => None,
            })
            .collect();
        for key in going {
            self.ready(&key, now);
        }
    }

    /// Into the active queue, or into backoff until its time is over.
    fn ready(&mut self, key: &ObjectKey, now: Instant) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        if waiting.not_before > now {
            waiting.place = Place::Backoff(waiting.not_before);
            self.backoff.insert((waiting.not_before, key.namespace.clone(), key.name.clone()));
        } else {
            let rank = (Reverse(waiting.priority), waiting.created, key.namespace.clone(), key.name.clone());
            waiting.place = Place::Active(rank.clone());
            self.active.insert(rank, key.clone());
        }
    }

    fn unlink(&mut self, key: &ObjectKey, place: &Place) {
        match place {
            Place::Active(rank) => drop(self.active.remove(rank)),
            Place::Backoff(at) => drop(self.backoff.remove(&(*at, key.namespace.clone(), key.name.clone()))),
            Place::Unschedulable { .. } | Place::InFlight => {}
        }
    }
}

fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(8);
    (BACKOFF_MIN * 2u32.pow(doublings)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("a", name)
    }

    #[test]
    fn urgent_first_then_oldest() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(&key("young"), 0, 2, now);
        queue.add(&key("old"), 0, 1, now);
        queue.add(&key("urgent"), 10, 3, now);
        queue.remove(&key("young"));
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(key("urgent")), Some(key("old")), None]);
    }

    #[test]
    fn events_wake_only_pods_they_may_cure() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(&key("p"), 0, 1, now);
        assert_eq!(queue.pop(), Some(key("p")));
        queue.unschedulable(&key("p"), vec!["TaintToleration"], now);
        let later = now + Duration::from_secs(2);
        queue.happened(Cause::PodGone, later);
        assert!(!queue.has_active());
        assert_eq!(queue.next_tick(), Some(now + UNSCHEDULABLE_MAX));
        queue.happened(Cause::NodeChanged, later);
        assert_eq!(queue.pop(), Some(key("p")));
    }

    #[test]
    fn backoff_doubles_up_to_its_bound() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.add(&key("p"), 0, 1, now);
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert_eq!(queue.pop(), Some(key("p")));
            queue.failed(&key("p"), now);
            assert_eq!(queue.next_tick(), Some(now + Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
            queue.tick(now);
        }
        assert_eq!(queue.pop(), Some(key("p")));
        queue.unschedulable(&key("p"), vec!["NodePorts"], now);
        queue.tick(now + UNSCHEDULABLE_MAX);
        assert!(queue.has_active());
    }
}

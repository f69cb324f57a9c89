//! How long a Job waits before it replaces failed pods: 10 s, doubled with each failure since the last success.

use std::time::Duration;

use jiff::Timestamp;

const BACKOFF_MIN: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// Failures since the last success, and when the latest was. The shell keeps it between reconciles; after a restart it
/// starts from the pods that are still there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    last: Option<Timestamp>,
}

impl Backoff {
    /// With the ends of pods that were not seen before.
    #[must_use]
    pub fn with(self, succeeded: &[Timestamp], failed: &[Timestamp]) -> Self {
        let Some(success) = succeeded.iter().max() else {
            let failures = self.failures.saturating_add(u32::try_from(failed.len()).unwrap_or(u32::MAX));
            return Self { failures, last: failed.iter().max().copied().or(self.last) };
        };
        let later = || failed.iter().filter(|failure| *failure > success);
        Self { failures: u32::try_from(later().count()).unwrap_or(u32::MAX), last: later().max().copied() }
    }

    /// How long to wait from `now`; zero: not at all.
    pub fn remaining(self, now: Timestamp) -> Duration {
        self.last.map_or(Duration::ZERO, |last| remaining(self.failures, last, now))
    }
}

/// What is left of the wait after so many failures, of which the last was at `last`.
pub fn remaining(failures: u32, last: Timestamp, now: Timestamp) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let doubled = 1_u32.checked_shl(failures - 1).and_then(|factor| BACKOFF_MIN.checked_mul(factor));
    let wait = doubled.map_or(BACKOFF_MAX, |wait| wait.min(BACKOFF_MAX));
    // A failure in the future, by another clock, waits as if it were now.
    let elapsed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    wait.saturating_sub(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn waits_double_and_a_success_ends_them() {
        let wait = |failures, now| remaining(failures, at(100), at(now)).as_secs();
        assert_eq!([wait(0, 100), wait(1, 100), wait(2, 100), wait(3, 100), wait(7, 100)], [0, 10, 20, 40, 600]);
        assert_eq!([wait(1, 104), wait(1, 110), wait(40, 100)], [6, 0, 600]);
        let failed = Backoff::default().with(&[], &[at(1), at(3)]);
        assert_eq!(failed.remaining(at(3)).as_secs(), 20);
        assert_eq!(failed.with(&[at(5)], &[]), Backoff::default());
        assert_eq!(failed.with(&[at(5)], &[at(4), at(6)]).remaining(at(6)).as_secs(), 10);
        assert_eq!(failed.with(&[], &[]), failed);
    }
}

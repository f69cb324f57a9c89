//! Bounded exponential backoff with jitter, for every retry loop that talks to the API.

use std::time::Duration;

/// Doubling delays from `min` to `max`, each spread by +-20% so that many clients do not return at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// The pause before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let delay = exponential(self.min, self.max, self.failures);
        self.failures = self.failures.saturating_add(1);
        delay.mul_f64(0.8 + 0.4 * rand::random::<f64>())
    }

    /// Forget the failures: the last try worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `min * 2^failures`, at most `max`.
pub(crate) fn exponential(min: Duration, max: Duration, failures: u32) -> Duration {
    min.checked_mul(1u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX)).map_or(max, |delay| delay.min(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_maximum() {
        let (min, max) = (Duration::from_millis(5), Duration::from_secs(1));
        let delays: Vec<u128> = [0, 1, 2, 7, 8, 40].iter().map(|n| exponential(min, max, *n).as_millis()).collect();
        assert_eq!(delays, [5, 10, 20, 640, 1000, 1000]);
    }
}

//! Exponential delay between attempts that fail: 10 s doubling to 300 s, forgotten after ten quiet minutes.

use jiff::{SignedDuration, Timestamp};

/// Delay before the second restart of a crashing container (the first is immediate).
pub const CRASH_DELAY_FIRST: SignedDuration = SignedDuration::from_secs(10);
/// Longest delay between restarts.
pub const CRASH_DELAY_MAX: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran this long starts from the first delay again.
pub const CRASH_RESET_AFTER: SignedDuration = SignedDuration::from_secs(600);
/// First and longest delay between image pulls.
pub const IMAGE_DELAY_FIRST: SignedDuration = SignedDuration::from_secs(10);
/// Longest delay between image pulls.
pub const IMAGE_DELAY_MAX: SignedDuration = SignedDuration::from_secs(300);

/// The delay in force, and when it was last raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Current delay.
    pub delay: SignedDuration,
    /// When the delay was last raised.
    pub updated: Timestamp,
}

impl Backoff {
    /// When the next attempt is allowed after a failure at `failed`; `None` means at once.
    pub fn not_before(this: Option<Backoff>, failed: Timestamp) -> Option<Timestamp> {
        let backoff = this?;
        if failed.duration_since(backoff.updated) > CRASH_RESET_AFTER {
            return None;
        }
        failed.checked_add(backoff.delay).ok()
    }

    /// The state after one more attempt at `now`, following a failure at `failed`.
    pub fn next(this: Option<Backoff>, failed: Timestamp, now: Timestamp) -> Backoff {
        let delay = match this {
            Some(b) if failed.duration_since(b.updated) <= CRASH_RESET_AFTER => (b.delay * 2).min(CRASH_DELAY_MAX),
            _ => CRASH_DELAY_FIRST,
        };
        Backoff { delay, updated: now }
    }
}

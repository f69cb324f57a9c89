//! Counting of probe results against thresholds.

use k8s_openapi::api::core::v1::Probe;

/// Which probe of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Holds the other two back until it succeeds.
    Startup,
    /// Failure restarts the container.
    Liveness,
    /// Decides whether the container receives traffic.
    Readiness,
}

impl ProbeKind {
    /// Word in event messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// A probe's numbers with Kubernetes' defaults filled in; seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Wait after the container's start.
    pub initial_delay: u64,
    /// Between attempts.
    pub period: u64,
    /// Per attempt.
    pub timeout: u64,
    /// Successes in a row that count.
    pub success: u32,
    /// Failures in a row that count.
    pub failure: u32,
}

impl From<&Probe> for ProbeSettings {
    fn from(probe: &Probe) -> Self {
        let positive = |v: Option<i32>, default: i32| v.filter(|v| *v > 0).unwrap_or(default).unsigned_abs();
        Self {
            initial_delay: u64::from(probe.initial_delay_seconds.unwrap_or(0).max(0).unsigned_abs()),
            period: u64::from(positive(probe.period_seconds, 10)),
            timeout: u64::from(positive(probe.timeout_seconds, 1)),
            success: positive(probe.success_threshold, 1),
            failure: positive(probe.failure_threshold, 3),
        }
    }
}

/// What a series of results amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeVerdict {
    /// Below the thresholds: nothing changes.
    Undecided,
    /// Enough successes in a row.
    Passed,
    /// Enough failures in a row.
    Failed,
}

/// Counts consecutive equal results.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProbeTracker {
    last: Option<bool>,
    run: u32,
}

impl ProbeTracker {
    /// Takes one result and says what the series amounts to now.
    pub fn record(&mut self, settings: &ProbeSettings, passed: bool) -> ProbeVerdict {
        self.run = if self.last == Some(passed) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(passed);
        match passed {
            true if self.run >= settings.success => ProbeVerdict::Passed,
            false if self.run >= settings.failure => ProbeVerdict::Failed,
            _ => ProbeVerdict::Undecided,
        }
    }
}

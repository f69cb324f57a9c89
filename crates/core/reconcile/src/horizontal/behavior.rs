//! How fast a wish becomes replicas: stabilisation windows, policies per period, and the least and the most there may be.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// How long a scale-down waits for its wish to last where the behaviour does not say.
const DOWN_WINDOW_SECONDS: i32 = 300;
/// Without a behaviour, a step up at most doubles the pods, or brings them to this many.
const STEP_UP_PODS: i32 = 4;

/// What an autoscaler remembers from look to look. Lost with the process, as upstream.
#[derive(Debug, Default)]
pub struct Memory {
    /// What metrics asked for, and when.
    wishes: Vec<(i32, Timestamp)>,
    grown: Vec<(i32, Timestamp)>,
    shrunk: Vec<(i32, Timestamp)>,
    started: bool,
    pub(super) told: Vec<(&'static str, String, Timestamp)>,
    pub(super) figures_written: Option<Timestamp>,
}

/// What may be done of a wish, and how conditions tell it.
#[derive(Debug, PartialEq)]
pub(super) struct Allowed {
    pub replicas: i32,
    pub able: (&'static str, &'static str),
    pub limited: bool,
    pub limit: (&'static str, &'static str),
}

/// The limits of one autoscaler.
pub(super) struct Bounds<'a> {
    pub behavior: Option<&'a HorizontalPodAutoscalerBehavior>,
    pub min: i32,
    pub max: i32,
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const HELD_UP: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const HELD_DOWN: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const FAST_UP: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const FAST_DOWN: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const MOST: (&str, &str) = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const LEAST: (&str, &str) = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");

fn ago(now: Timestamp, seconds: i32) -> Timestamp {
    now.checked_sub(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MIN)
}

fn sum_since(changes: &[(i32, Timestamp)], cutoff: Timestamp) -> i32 {
    changes.iter().filter(|(_, at)| *at > cutoff).fold(0, |sum, (pods, _)| sum.saturating_add(*pods))
}

impl Memory {
    /// The replicas found at the first look count as a wish: a restart scales nothing down at once.
    pub(super) fn start(&mut self, replicas: i32, now: Timestamp) {
        if !self.started {
            self.started = true;
            self.wishes.push((replicas, now));
        }
        self.not_after(now);
    }

    /// Where the clock went back, what was remembered for later happened just now: it must not hold for longer.
    fn not_after(&mut self, now: Timestamp) {
        let times = [&mut self.wishes, &mut self.grown, &mut self.shrunk].into_iter().flatten().map(|(_, at)| at);
        let told = self.told.iter_mut().map(|(.., at)| at);
        for at in times.chain(told).chain(&mut self.figures_written) {
            *at = now.min(*at);
        }
    }

    pub(super) fn allow(&mut self, bounds: &Bounds<'_>, current: i32, wish: i32, now: Timestamp) -> Allowed {
        let rules = bounds.behavior.and_then(|behavior| behavior.scale_up.as_ref().zip(behavior.scale_down.as_ref()));
        let (windows, allowed) = match rules {
            Some((up, down)) => {
                let windows = (
                    up.stabilization_window_seconds.unwrap_or(0),
                    down.stabilization_window_seconds.unwrap_or(DOWN_WINDOW_SECONDS),
                );
                (windows, self.by_rules((up, down), windows, bounds, (current, wish), now))
            }
            None => ((0, DOWN_WINDOW_SECONDS), self.by_default(bounds, current, wish, now)),
        };
        let oldest = ago(now, windows.0.max(windows.1));
        self.wishes.retain(|(_, at)| *at >= oldest);
        self.wishes.push((wish, now));
        allowed
    }

    fn by_default(&self, bounds: &Bounds<'_>, current: i32, wish: i32, now: Timestamp) -> Allowed {
        let cutoff = ago(now, DOWN_WINDOW_SECONDS);
        let recent = self.wishes.iter().filter(|(_, at)| *at >= cutoff).map(|(replicas, _)| *replicas);
        let steady = recent.fold(wish, i32::max);
        let able = if steady == wish { READY } else { HELD_DOWN };
        let step = current.saturating_mul(2).max(STEP_UP_PODS);
        let (most, why) = if bounds.max > step { (step, FAST_UP) } else { (bounds.max, MOST) };
        let (replicas, limit) = if steady < bounds.min {
            (bounds.min, LEAST)
        } else if steady > most {
            (most, why)
        } else {
            (steady, WITHIN)
        };
        Allowed { replicas, able, limited: replicas != steady, limit }
    }

    fn by_rules(
        &self,
        (up, down): (&HPAScalingRules, &HPAScalingRules),
        windows: (i32, i32),
        bounds: &Bounds<'_>,
        (current, wish): (i32, i32),
        now: Timestamp,
    ) -> Allowed {
        let since = |seconds: i32| {
            let cutoff = ago(now, seconds);
            self.wishes.iter().filter(move |(_, at)| *at > cutoff).map(|(replicas, _)| *replicas)
        };
        let lowest = since(windows.0).fold(wish, i32::min);
        let highest = since(windows.1).fold(wish, i32::max);
        let steady = current.clamp(lowest, highest);
        let able = match steady == wish {
            true => READY,
            false if wish >= current => HELD_UP,
            false => HELD_DOWN,
        };
        let (replicas, limit) = if steady > current {
            let step = self.most(up, current, now).max(current);
            let (most, why) = if bounds.max > step { (step, FAST_UP) } else { (bounds.max, MOST) };
            if steady > most { (most, why) } else { (steady, WITHIN) }
        } else if steady < current {
            let step = self.least(down, current, now).min(current);
            let (least, why) = if bounds.min < step { (step, FAST_DOWN) } else { (bounds.min, LEAST) };
            if steady < least { (least, why) } else { (steady, WITHIN) }
        } else {
            (steady, WITHIN)
        };
        Allowed { replicas, able, limited: replicas != steady, limit }
    }

    /// How many there were when a period began.
    fn at_start_of(&self, period_seconds: i32, current: i32, now: Timestamp) -> i32 {
        let cutoff = ago(now, period_seconds);
        current.saturating_sub(sum_since(&self.grown, cutoff)).saturating_add(sum_since(&self.shrunk, cutoff))
    }

    fn most(&self, rules: &HPAScalingRules, current: i32, now: Timestamp) -> i32 {
        let steps = rules.policies.iter().flatten().map(|policy| {
            let start = self.at_start_of(policy.period_seconds, current, now);
            match policy.type_.as_str() {
                "Pods" => start.saturating_add(policy.value),
                // Rounded up: a small share of few pods would never add one.
                _ => (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
            }
        });
        match rules.select_policy.as_deref() {
            Some("Disabled") => Some(current),
            Some("Min") => steps.min(),
            _ => steps.max(),
        }
        .unwrap_or(current)
    }

    fn least(&self, rules: &HPAScalingRules, current: i32, now: Timestamp) -> i32 {
        let steps = rules.policies.iter().flatten().map(|policy| {
            let start = self.at_start_of(policy.period_seconds, current, now);
            match policy.type_.as_str() {
                "Pods" => start.saturating_sub(policy.value),
                _ => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            }
        });
        match rules.select_policy.as_deref() {
            Some("Disabled") => Some(current),
            // The smaller change leaves more pods.
            Some("Min") => steps.max(),
            _ => steps.min(),
        }
        .unwrap_or(current)
    }

    /// Remembers a change for the periods of the policies.
    pub(super) fn scaled(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        from: i32,
        to: i32,
        now: Timestamp,
    ) {
        let Some(behavior) = behavior else { return };
        let rules = [&behavior.scale_up, &behavior.scale_down].into_iter().flatten();
        let longest = rules.flat_map(|rules| rules.policies.iter().flatten()).map(|policy| policy.period_seconds);
        let oldest = ago(now, longest.max().unwrap_or(0));
        let changes = if to > from { &mut self.grown } else { &mut self.shrunk };
        changes.retain(|(_, at)| *at >= oldest);
        changes.push((to.abs_diff(from).try_into().unwrap_or(i32::MAX), now));
    }
}

//! HorizontalPodAutoscalers: from a scale, its pods and what metrics say to a number of replicas, conditions and events.
//!
//! A look at an autoscaler is a [`Look`]: it is told what the target's scale is, then what there is to know of the pods,
//! then how the rescale went, and ends in a plan. It holds no state; what has to last is in the [`Memory`] that the caller
//! keeps per autoscaler.

mod behavior;
mod demand;
mod metric;
mod pods;
pub mod sources;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus, MetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use meta::labels::Selector;
use serde_json::Value;

pub use behavior::Memory;

use crate::conditions::seconds;
use crate::ownership::reference;
use crate::plan::{HORIZONTAL_POD_AUTOSCALERS, Note, Op, Plan, difference};
use behavior::Bounds;
use demand::Tolerance;
use metric::{Facts, propose};
use sources::Answer;

/// How often a target is looked at: a figure that somebody else's question brought is answered within 5 s, the look's own
/// time included.
const LOOK_EVERY: Duration = Duration::from_secs(4);
/// How often where the last look failed; as upstream looks.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// The same warning is repeated, and figures that changed nothing are written, at upstream's pace.
const TELL_EVERY: SignedDuration = SignedDuration::from_secs(15);
/// The share by which use may differ from its target without effect.
const TOLERANCE: f64 = 0.1;

/// A target's scale.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// What the target wants.
    pub replicas: i32,
    /// What the target has.
    pub present: i32,
    /// Its pods, as a label selector in text form.
    pub selector: String,
}

impl Scale {
    /// Reads an `autoscaling/v1` Scale.
    pub fn from_value(scale: &Value) -> Self {
        let number =
            |path| scale.pointer(path).and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
        let selector = scale.pointer("/status/selector").and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { replicas: number("/spec/replicas"), present: number("/status/replicas"), selector }
    }
}

/// The pods of a target and what the metrics' APIs said, in the order of the metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observed<'a> {
    pub pods: &'a [Pod],
    pub answers: &'a [Answer],
    /// Name and selector of the namespace's other autoscalers.
    pub others: &'a [(String, Selector)],
}

/// A number of replicas to write to the target's scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescale {
    pub from: i32,
    pub to: i32,
    why: String,
}

/// One look at one autoscaler.
pub struct Look<'a> {
    scaler: &'a HorizontalPodAutoscaler,
    spec: &'a HorizontalPodAutoscalerSpec,
    status: HorizontalPodAutoscalerStatus,
    notes: Vec<Note>,
    now: Timestamp,
    again: Duration,
}

impl<'a> Look<'a> {
    pub fn new(scaler: &'a HorizontalPodAutoscaler, now: Timestamp) -> Self {
        let status = scaler.status.clone().unwrap_or_default();
        Self { scaler, spec: &scaler.spec, status, notes: Vec::new(), now, again: LOOK_EVERY }
    }

    fn min(&self) -> i32 {
        self.spec.min_replicas.unwrap_or(1)
    }

    /// Whether metrics decide: otherwise the target is at zero, which switches scaling off, or outside of its limits.
    pub fn asks_metrics(&self, scale: &Scale) -> bool {
        scale.replicas != 0 && (self.min()..=self.spec.max_replicas).contains(&scale.replicas)
    }

    fn warn(&mut self, reason: &'static str, message: impl Into<String>) {
        let about = reference(HORIZONTAL_POD_AUTOSCALERS, &self.scaler.metadata);
        self.notes.push(Note::warning(&about, reason, message));
    }

    fn set(&mut self, kind: &str, status: bool, reason: &str, message: impl Into<String>) {
        let status = if status { "True" } else { "False" };
        let conditions = self.status.conditions.get_or_insert_default();
        let at = conditions.iter().position(|known| known.type_ == kind).unwrap_or_else(|| {
            conditions.push(HorizontalPodAutoscalerCondition { type_: kind.to_owned(), ..Default::default() });
            conditions.len() - 1
        });
        let condition = &mut conditions[at];
        if condition.status != status {
            condition.last_transition_time = Some(seconds(self.now));
        }
        status.clone_into(&mut condition.status);
        (condition.reason, condition.message) = (Some(reason.to_owned()), Some(message.into()));
    }

    /// The target's scale could not be read.
    pub fn without_scale(&mut self, why: &str) {
        self.warn("FailedGetScale", why);
        let message = format!("the HPA controller was unable to get the target's current scale: {why}");
        self.set("AbleToScale", false, "FailedGetScale", message);
        self.again = LOOK_AGAIN;
    }

    /// Decides what the scale should become; `None`: it stays.
    pub fn decide(&mut self, scale: &Scale, observed: &Observed<'_>, memory: &mut Memory) -> Option<Rescale> {
        let able = "the HPA controller was able to get the target's current scale";
        self.set("AbleToScale", true, "SucceededGetScale", able);
        memory.start(scale.replicas, self.now);
        let (from, min, max) = (scale.replicas, self.min(), self.spec.max_replicas);
        if from == 0 {
            let why = "scaling is disabled since the replica count of the target is zero";
            self.set("ScalingActive", false, "ScalingDisabled", why);
            // Only an API server that lets autoscalers go to zero writes this one.
            self.status.conditions.iter_mut().for_each(|all| all.retain(|known| known.type_ != "ScaledToZero"));
            self.settle(from, from, None);
            None
        } else if from > max {
            self.settle(from, max, None);
            Some(Rescale { from, to: max, why: "Current number of replicas above Spec.MaxReplicas".to_owned() })
        } else if from < min {
            self.settle(from, min, None);
            Some(Rescale { from, to: min, why: "Current number of replicas below Spec.MinReplicas".to_owned() })
        } else {
            self.by_metrics(scale, observed, memory)
        }
    }

    fn by_metrics(&mut self, scale: &Scale, observed: &Observed<'_>, memory: &mut Memory) -> Option<Rescale> {
        let from = scale.replicas;
        if let Err(why) = self.check_selector(scale, observed) {
            self.settle(from, self.status.desired_replicas, None);
            self.warn("FailedComputeMetricsReplicas", why);
            return None;
        }
        let (metrics, wish) = self.wish(scale, observed);
        let (wish, name) = match wish {
            Ok(wish) => wish,
            Err(why) => {
                self.settle(from, self.status.desired_replicas, Some(metrics));
                self.warn("FailedComputeMetricsReplicas", why);
                return None;
            }
        };
        let wish = wish.max(0);
        let why = match wish.cmp(&from) {
            std::cmp::Ordering::Greater => format!("{name} above target"),
            std::cmp::Ordering::Less => "All metrics below target".to_owned(),
            std::cmp::Ordering::Equal => String::new(),
        };
        let (behavior, min, max) = (self.spec.behavior.as_ref(), self.min(), self.spec.max_replicas);
        let allowed = memory.allow(&Bounds { behavior, min, max }, from, wish, self.now);
        self.set("AbleToScale", true, allowed.able.0, allowed.able.1);
        self.set("ScalingLimited", allowed.limited, allowed.limit.0, allowed.limit.1);
        self.settle(from, allowed.replicas, Some(metrics));
        (allowed.replicas != from).then_some(Rescale { from, to: allowed.replicas, why })
    }

    /// The pods of a target must be known, and nobody else's.
    fn check_selector(&mut self, scale: &Scale, observed: &Observed<'_>) -> Result<(), String> {
        if scale.selector.is_empty() {
            let message = "the HPA target's scale is missing a selector";
            return self.refuse_selector(
                "SelectorRequired",
                "InvalidSelector",
                "selector is required".into(),
                message.into(),
            );
        }
        if let Err(error) = Selector::parse(&scale.selector) {
            let why = format!("couldn't convert selector into a corresponding internal selector object: {error}");
            return self.refuse_selector("InvalidSelector", "InvalidSelector", why.clone(), why);
        }
        let selects = |selector: &Selector| {
            observed.pods.iter().any(|pod| selector.matches(&crate::plan::to_value(&pod.metadata.labels)))
        };
        let rivals = observed.others.iter().filter(|(_, selector)| selects(selector)).map(|(name, _)| name.as_str());
        let mut rivals: Vec<&str> = rivals.collect();
        if rivals.is_empty() {
            return Ok(());
        }
        let meta = &self.scaler.metadata;
        let (name, namespace) =
            (meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default());
        rivals.push(name);
        rivals.sort_unstable();
        let all = rivals.iter().map(|name| format!("{{{name} {namespace}}}")).collect::<Vec<_>>().join(" ");
        let why = format!("pods by selector {} are controlled by multiple HPAs: [{all}]", scale.selector);
        self.refuse_selector("AmbiguousSelector", "AmbiguousSelector", why.clone(), why)
    }

    fn refuse_selector(
        &mut self,
        event: &'static str,
        reason: &str,
        why: String,
        message: String,
    ) -> Result<(), String> {
        self.warn(event, why.as_str());
        self.set("ScalingActive", false, reason, message);
        Err(why)
    }

    /// The most that any metric asks for, with that metric's name; and the status of each.
    fn wish(&mut self, scale: &Scale, observed: &Observed<'_>) -> (Vec<MetricStatus>, Result<(i32, String), String>) {
        let specs = self.spec.metrics.as_deref().unwrap_or_default();
        let facts = Facts {
            namespace: self.scaler.metadata.namespace.as_deref().unwrap_or_default(),
            replicas: (scale.replicas, scale.present),
            pods: observed.pods,
            tolerance: self.tolerance(),
            now: self.now,
        };
        let unread: Answer = Err("nothing was read".to_owned());
        let (mut statuses, mut failures, mut best) = (Vec::new(), Vec::new(), (0, String::new()));
        for (number, spec) in specs.iter().enumerate() {
            match propose(spec, observed.answers.get(number).unwrap_or(&unread), &facts) {
                Ok(proposal) => {
                    statuses.push(proposal.status);
                    if best.0 == 0 || proposal.replicas > best.0 {
                        best = (proposal.replicas, proposal.name);
                    }
                }
                Err(failure) => {
                    statuses.push(MetricStatus::default());
                    self.warn(failure.reason, failure.why.as_str());
                    failures.push(failure);
                }
            }
        }
        // With a metric missing, the others may ask for more but not for less.
        let blind = failures.len() >= specs.len() || (!failures.is_empty() && best.0 < scale.replicas);
        match failures.first().filter(|_| blind) {
            Some(first) => {
                let message = format!("the HPA was unable to compute the replica count: {}", first.why);
                self.set("ScalingActive", false, first.reason, message);
                let (bad, all) = (failures.len(), specs.len());
                let why = format!("invalid metrics ({bad} invalid out of {all}), first error is: {}", first.summary);
                (statuses, Err(why))
            }
            None => {
                let message = format!("the HPA was able to successfully calculate a replica count from {}", best.1);
                self.set("ScalingActive", true, "ValidMetricFound", message);
                (statuses, Ok(best))
            }
        }
    }

    fn tolerance(&self) -> Tolerance {
        let of = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
            let own = rules.and_then(|rules| rules.tolerance.as_ref()).map(pods::milli);
            own.map_or(TOLERANCE, |milli| milli as f64 / 1000.0)
        };
        let behavior = self.spec.behavior.as_ref();
        Tolerance {
            up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
            down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
        }
    }

    fn settle(&mut self, current: i32, desired: i32, metrics: Option<Vec<MetricStatus>>) {
        self.status.current_replicas = Some(current);
        self.status.desired_replicas = desired;
        self.status.current_metrics = metrics;
        self.status.observed_generation = None;
    }

    /// The scale was written.
    pub fn rescaled(&mut self, rescale: &Rescale, memory: &mut Memory) {
        let Rescale { from, to, why } = rescale;
        let able = format!("the HPA controller was able to update the target scale to {to}");
        self.set("AbleToScale", true, "SucceededRescale", able);
        let about = reference(HORIZONTAL_POD_AUTOSCALERS, &self.scaler.metadata);
        self.notes.push(Note::normal(&about, "SuccessfulRescale", format!("New size: {to}; reason: {why}")));
        memory.scaled(self.spec.behavior.as_ref(), *from, *to, self.now);
        let metrics = self.status.current_metrics.take();
        self.settle(*from, *to, metrics);
        self.status.last_scale_time = Some(seconds(self.now));
    }

    /// The scale could not be written.
    pub fn refused(&mut self, rescale: &Rescale, error: &str) {
        let Rescale { from, to, why } = rescale;
        self.warn("FailedRescale", format!("New size: {to}; reason: {why}; error: {error}"));
        let unable = format!("the HPA controller was unable to update the target scale: {error}");
        self.set("AbleToScale", false, "FailedUpdateScale", unable);
        let metrics = self.status.current_metrics.take();
        let desired = self.scaler.status.as_ref().map_or(0, |status| status.desired_replicas);
        self.settle(*from, desired, metrics);
        self.again = LOOK_AGAIN;
    }

    /// The events and the status of this look.
    pub fn finish(self, memory: &mut Memory) -> Plan {
        let Self { scaler, status, notes, now, again, .. } = self;
        let mut plan = Plan { requeue_after: Some(again), ..Plan::default() };
        memory.told.retain(|(_, _, at)| now.duration_since(*at) < TELL_EVERY);
        for note in notes {
            let told =
                |(reason, message, _): &(&str, String, Timestamp)| *reason == note.reason && *message == note.message;
            if note.warning && memory.told.iter().any(told) {
                continue;
            }
            if note.warning {
                memory.told.push((note.reason, note.message.clone(), now));
            }
            plan.notes.push(note);
        }
        let old = scaler.status.clone().unwrap_or_default();
        let recent = memory.figures_written.is_some_and(|at| now.duration_since(at) < TELL_EVERY);
        if let Some(change) = difference(&old, &status).filter(|_| !(recent && only_figures(&old, &status))) {
            memory.figures_written = Some(now);
            let meta = &scaler.metadata;
            let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
            let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
            plan.push(Op::update_status(HORIZONTAL_POD_AUTOSCALERS, namespace, name, change));
        }
        plan
    }
}

/// Whether two statuses differ in nothing but the figures of the same metrics.
fn only_figures(old: &HorizontalPodAutoscalerStatus, new: &HorizontalPodAutoscalerStatus) -> bool {
    let kinds = |status: &HorizontalPodAutoscalerStatus| -> Vec<String> {
        status.current_metrics.iter().flatten().map(|metric| metric.type_.clone()).collect()
    };
    let rest = |status: &HorizontalPodAutoscalerStatus| HorizontalPodAutoscalerStatus {
        current_metrics: None,
        ..status.clone()
    };
    kinds(old) == kinds(new) && rest(old) == rest(new)
}

//! The autoscaler: core/reconcile's look, as the shell makes it, at simulated metrics.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use reconcile::horizontal::sources::Answer;
use reconcile::horizontal::{Look, Memory, Observed, Scale};
use reconcile::plan::{Op, Plan};
use serde::Deserialize;
use serde_json::json;

use crate::api::{Api, Fault};
use crate::faults::Faults;
use crate::manager::writes;
use crate::mutants::Mutant;
use crate::object::Object;

/// The autoscaler's name, its target's, and the label of the pods.
pub const NAME: &str = "elastic";
/// How long after a failed write the next look is.
const RETRY: SignedDuration = SignedDuration::from_secs(1);
/// One answer in so many is an error.
const UNANSWERED_IN: usize = 8;

/// A change of the target's replicas.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    pub from: i32,
    pub to: i32,
    /// The answer was lost: the autoscaler does not know of it.
    pub lost: bool,
}

#[derive(Default)]
pub struct Autoscaler {
    cached: Option<Arc<Object>>,
    memory: Memory,
    again: Timestamp,
    steps: VecDeque<Op>,
    /// What all pods together have to do, in thousandths.
    pub load: usize,
    moved: Option<Move>,
}

impl Autoscaler {
    /// A fresh process for the same load.
    pub fn start(api: &Api, load: usize) -> Self {
        Self { load, again: api.now, cached: api.get("HorizontalPodAutoscaler", NAME).cloned(), ..Self::default() }
    }

    /// Sees the autoscaler as it is.
    pub fn see(&mut self, api: &Api) {
        self.cached = api.get("HorizontalPodAutoscaler", NAME).cloned();
    }

    pub fn next_timer(&self) -> Option<Timestamp> {
        self.cached.as_ref().map(|_| self.again)
    }

    pub fn take_move(&mut self) -> Option<Move> {
        self.moved.take()
    }

    /// Looks when it is time, or makes a write of the last look; what it was, in words.
    pub fn step(&mut self, api: &mut Api, faults: &mut Faults) -> Option<String> {
        let Some(op) = self.steps.pop_front() else { return self.look(api, faults) };
        let result = faults.send(api, |api| api.write(&op));
        match result {
            Ok(()) => self.see(api),
            Err(_) => {
                self.steps.clear();
                self.again = api.now + RETRY;
            }
        }
        Some(format!("Autoscaler tells its status: {result:?}"))
    }

    fn look(&mut self, api: &mut Api, faults: &mut Faults) -> Option<String> {
        let mut scaler = self.cached.clone().filter(|_| self.again <= api.now)?.autoscaler()?.clone();
        if api.has(Mutant::IgnoresMax) {
            Arc::make_mut(&mut scaler).spec.max_replicas = i32::MAX;
        }
        if api.has(Mutant::ForgetsItsSteps) {
            self.memory = Memory::default();
        }
        let mut said = None;
        let mut look = Look::new(&scaler, api.wall());
        match api.get("Deployment", NAME).map(|target| scale(target)) {
            None => look.without_scale("not found"),
            Some(scale) => {
                let pods = if look.asks_metrics(&scale) { pods(api) } else { Vec::new() };
                let answer = self.answer(&scaler, &pods, api, faults);
                let observed = Observed { pods: &pods, answers: &[answer], others: &[] };
                if let Some(rescale) = look.decide(&scale, &observed, &mut self.memory) {
                    let replicas = json!({ "spec": { "replicas": rescale.to } });
                    let before = api.revision();
                    let result = faults.send(api, |api| api.patch("Deployment", NAME, false, false, &replicas));
                    match result {
                        Ok(()) => look.rescaled(&rescale, &mut self.memory),
                        Err(_) => look.refused(&rescale, "no answer"),
                    }
                    if api.revision() != before {
                        let lost = result == Err(Fault::Lost);
                        self.moved = Some(Move { from: rescale.from, to: rescale.to, lost });
                    }
                    said = Some(format!("Autoscaler from {} to {}: {result:?}", rescale.from, rescale.to));
                }
            }
        }
        let plan: Plan = look.finish(&mut self.memory);
        let again = plan.requeue_after.and_then(|again| SignedDuration::try_from(again).ok());
        self.again = api.now + again.unwrap_or(RETRY);
        self.steps = writes(plan).collect();
        said.or_else(|| (!self.steps.is_empty()).then(|| "Autoscaler looks".to_owned()))
    }

    /// What the metrics' server says: each ready pod does its share, or a queue outside is as long as the load.
    fn answer(&self, scaler: &HorizontalPodAutoscaler, pods: &[Pod], api: &Api, faults: &mut Faults) -> Answer {
        if faults.enabled && faults.dice.once_in(UNANSWERED_IN) {
            return Err("no answer".to_owned());
        }
        let now = api.wall().to_string();
        let external = scaler.spec.metrics.iter().flatten().any(|metric| metric.type_ == "External");
        if external {
            let value = format!("{}m", self.load);
            return Ok(json!({ "items": [{ "metricName": "load", "timestamp": now, "value": value }] }));
        }
        let ready: Vec<&Pod> = pods.iter().filter(|pod| is_ready(pod)).collect();
        let share = format!("{}m", self.load / ready.len().max(1));
        let item =
            |pod: &&Pod| json!({ "describedObject": { "name": pod.metadata.name }, "timestamp": now, "value": share });
        Ok(json!({ "items": ready.iter().map(item).collect::<Vec<_>>() }))
    }
}

/// The scale that the API server makes of a Deployment.
fn scale(target: &Object) -> Scale {
    let (replicas, present) = (&target.value["spec"]["replicas"], &target.value["status"]["replicas"]);
    let status = json!({ "replicas": present, "selector": format!("app={NAME}") });
    Scale::from_value(&json!({ "spec": { "replicas": replicas }, "status": status }))
}

fn pods(api: &Api) -> Vec<Pod> {
    let selected = |pod: &&Arc<Object>| pod.text("metadata/labels/app") == NAME;
    api.list("Pod").filter(selected).filter_map(|pod| Pod::deserialize(&pod.value).ok()).collect()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

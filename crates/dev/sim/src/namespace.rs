//! The namespace: its deletion by passes over what is in it, as the shell makes them, told of by core/reconcile.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::namespace::{FINALIZER, Report, arrivals_end_in, is_pending, status};
use reconcile::plan::{NAMESPACES, Op, PatchKind, Plan, Resource};
use serde::Deserialize;
use serde_json::json;

use crate::api::{Api, NAMESPACE};
use crate::manager::{Manager, Work};
use crate::mutants::Mutant;
use crate::object::Object;
use crate::roles::{CLUSTER_KINDS, KINDS};

/// Between passes while content is still going.
const PASS_EVERY: Duration = Duration::from_secs(1);

pub fn create(api: &mut Api) {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE },
        "spec": { "finalizers": [FINALIZER] } });
    // It is the first object of its server.
    let _ = api.create("Namespace", namespace);
}

impl Manager {
    /// Deletes pods, then other content, then says how far it is or lets the namespace go.
    pub fn plan_namespace(&self, object: &Object, work: &mut Work, api: &Api) -> Option<Plan> {
        let namespace = object.namespace().filter(|namespace| is_pending(namespace))?;
        if work.stage == 0 {
            let wait = arrivals_end_in(namespace, api.wall());
            work.arrivals = wait.filter(|_| !self.has(Mutant::FinalizesAtOnce));
        }
        let mut plan = Plan::default();
        let mut report = Report::default();
        if work.stage == 1 {
            self.note(0, &mut report, api);
        }
        if work.stage < 2 {
            for kind in self.kinds(work.stage).filter(|_| report.may_go_on()) {
                // The simulated server goes by kinds.
                let resource = Resource { api_version: "", plural: "", kind };
                for found in api.list(kind).filter(|found| !found.is_deleting()) {
                    let (namespace, name) = (NAMESPACE.to_owned(), found.name().to_owned());
                    plan.push(Op::Delete { resource, namespace, name, uid: None, grace: None });
                }
            }
            return Some(plan);
        }
        self.note(0, &mut report, api);
        if report.may_go_on() {
            self.note(1, &mut report, api);
        }
        if report.is_done() && work.arrivals.is_some() {
            plan.requeue_after = work.arrivals;
        } else if report.is_done() {
            plan.push(finalize(object));
        } else {
            if let Some(status) = status(namespace, &report, api.wall()) {
                plan.push(Op::update_status(NAMESPACES, "", NAMESPACE, status));
            }
            plan.requeue(PASS_EVERY);
        }
        Some(plan)
    }

    /// The kinds of a stage: pods first, then everything else.
    fn kinds(&self, stage: usize) -> impl Iterator<Item = &'static str> {
        let forgotten = if self.has(Mutant::ForgetsAKind) { "PodDisruptionBudget" } else { "" };
        let known = move |kind: &&str| !CLUSTER_KINDS.contains(kind) && *kind != forgotten;
        KINDS.into_iter().filter(known).filter(move |kind| (*kind == "Pod") == (stage == 0))
    }

    fn note(&self, stage: usize, report: &mut Report, api: &Api) {
        for kind in self.kinds(stage) {
            let left = api.list(kind).filter_map(|left| ObjectMeta::deserialize(&left.value["metadata"]).ok());
            let left: Vec<ObjectMeta> = left.collect();
            report.note(kind.to_owned(), kind, NAMESPACE, left.iter());
        }
    }
}

/// Takes the finalizer of the namespace that was read.
fn finalize(namespace: &Object) -> Op {
    let version = &namespace.value["metadata"]["resourceVersion"];
    Op::Patch {
        resource: NAMESPACES,
        namespace: String::new(),
        name: NAMESPACE.to_owned(),
        subresource: Some("finalize"),
        kind: PatchKind::Merge,
        body: json!({ "metadata": { "resourceVersion": version }, "spec": { "finalizers": [] } }),
    }
}

/// At rest after its deletion: nothing of the namespace is left.
pub fn is_gone(api: &Api) -> Result<(), String> {
    match api.all().find(|(kind, ..)| *kind != "Node") {
        Some((kind, name, _)) => Err(format!("{kind} {name} is left of a deleted namespace")),
        None => Ok(()),
    }
}

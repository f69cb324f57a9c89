//! What each controller plans for a key: core/reconcile, asked as the shell asks it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use reconcile::conditions::seconds;
use reconcile::disruption::{Scale, needs_scale, scale_failed, stale_disruption};
use reconcile::job::{State, is_finished, orphans};
use reconcile::node_lifecycle::collect_pods;
use reconcile::plan::{Op, Plan, REPLICA_SETS};
use reconcile::replicaset::Survey;
use reconcile::revisions::Revision;
use reconcile::{PodView, cronjob, daemonset, deployment, disruption, node_lifecycle, replicaset, statefulset};

use crate::api::Api;
use crate::manager::{Manager, Work};
use crate::mutants::Mutant;
use crate::object::Object;
use crate::roles::{Role, is_suspect};

/// A node that is silent for so long is lost.
const GRACE: Duration = Duration::from_secs(40);
/// A node that is missing for so long loses its pods.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
const FINISHED_PODS_MAX: usize = 12_500;

impl Manager {
    /// The next plan of a reconcile; `None` when there is nothing to plan for.
    pub fn plan(&mut self, role: Role, work: &mut Work, api: &Api) -> Option<Plan> {
        if role == Role::PodCollector {
            return Some(self.collect(api));
        }
        let now = seconds(api.wall()).0;
        let object = self.caches.get(role.kind(), &work.key)?.clone();
        let mut plan = match role {
            Role::Deployment => self.plan_deployment(&object, now),
            Role::ReplicaSet => self.plan_replica_set(&object, work, now),
            Role::StatefulSet => self.plan_stateful_set(&object, work.stage, now),
            Role::DaemonSet => self.plan_daemon_set(&object, work.stage, now),
            Role::Job => self.plan_job(&object, work, api.wall()),
            Role::CronJob => self.plan_cron_job(&object, api),
            Role::JobOrphans => {
                let pod = object.pod().filter(|pod| is_suspect(pod, &self.caches))?;
                let owner = pod.controller().map(|owner| owner.name.clone()).unwrap_or_default();
                let live = api.get("Job", &owner).and_then(|job| job.job());
                Some(orphans::plan(pod, live.map(|job| &**job)))
            }
            Role::Budget => self.plan_budget(&object, now),
            Role::StaleDisruption => Some(stale_disruption(object.pod()?, api.wall())),
            Role::NodeLifecycle => self.plan_node(&object, work, api),
            Role::Namespace => self.plan_namespace(&object, work, api),
            Role::Quota => self.plan_quota(&object, api),
            Role::PodCollector => None,
        }?;
        self.mutate(role, work.stage, &object, &mut plan, api);
        Some(plan)
    }

    fn plan_deployment(&self, object: &Object, now: Timestamp) -> Option<Plan> {
        let owned = || self.caches.owned("ReplicaSet", object.uid());
        let pods = owned().flat_map(|set| self.caches.owned("Pod", set.uid()));
        let pods: Vec<Arc<PodView>> = pods.filter_map(|pod| pod.pod().cloned()).collect();
        let orphans = self.caches.owned("ReplicaSet", "");
        let mut sets: Vec<Arc<ReplicaSet>> =
            owned().chain(orphans).filter_map(|set| set.replica_set().cloned()).collect();
        if self.has(Mutant::BelievesAllAvailable) {
            for status in sets.iter_mut().filter_map(|set| Arc::make_mut(set).status.as_mut()) {
                (status.ready_replicas, status.available_replicas) = (Some(status.replicas), Some(status.replicas));
            }
        }
        Some(deployment::plan(object.deployment()?, &sets, &pods, now))
    }

    fn plan_replica_set(&self, object: &Object, work: &mut Work, now: Timestamp) -> Option<Plan> {
        let set = object.replica_set()?;
        if work.stage > 0 {
            let survey = work.survey.take().unwrap_or_else(|| self.survey(object, set, now));
            return Some(replicaset::status(REPLICA_SETS, set, &survey, None, now));
        }
        let survey = self.survey(object, set, now);
        let owned = || self.caches.owned("Pod", object.uid()).filter_map(|pod| pod.pod().cloned()).collect();
        let plan = replicaset::plan(REPLICA_SETS, set, owned, &survey, || self.related(object), now);
        work.survey = plan.is_empty().then_some(survey);
        Some(plan)
    }

    fn survey(&self, object: &Object, set: &ReplicaSet, now: Timestamp) -> Survey {
        let views = |uid| self.caches.owned("Pod", uid).filter_map(|pod| pod.pod()).map(|pod| &**pod);
        replicaset::survey(REPLICA_SETS, set, views(object.uid()), views(""), now)
    }

    /// Active pods per node of all sets of this set's owner.
    fn related(&self, object: &Object) -> HashMap<String, usize> {
        let owners: Vec<&str> = match object.owner() {
            Some(owner) => self.caches.owned("ReplicaSet", owner).map(|set| set.uid()).collect(),
            None => vec![object.uid()],
        };
        let mut nodes = HashMap::new();
        let pods = owners.into_iter().flat_map(|uid| self.caches.owned("Pod", uid)).filter_map(|pod| pod.pod());
        for pod in pods.filter(|pod| pod.is_active()) {
            *nodes.entry(pod.node.clone()).or_insert(0) += 1;
        }
        nodes
    }

    fn plan_stateful_set(&self, object: &Object, stage: usize, now: Timestamp) -> Option<Plan> {
        let (set, revisions, pods) = (object.stateful_set()?, self.revisions(object), self.pods(object));
        Some(match stage {
            0 => statefulset::history(set, &revisions),
            1 => statefulset::plan(set, &revisions, &pods, &[], now),
            _ => statefulset::status(set, &revisions, &pods, now),
        })
    }

    fn plan_daemon_set(&mut self, object: &Object, stage: usize, now: Timestamp) -> Option<Plan> {
        let (set, revisions, pods) = (object.daemon_set()?, self.revisions(object), self.pods(object));
        let nodes: Vec<_> = self.caches.list("Node").filter_map(|node| node.node().cloned()).collect();
        Some(match stage {
            0 => daemonset::history(set, &revisions, &pods),
            1 => daemonset::plan(set, &revisions, &pods, &nodes, &mut self.failed, now),
            _ => daemonset::status(set, &revisions, &pods, &nodes, now),
        })
    }

    fn plan_job(&mut self, object: &Object, work: &mut Work, now: Timestamp) -> Option<Plan> {
        let Some(job) = object.job().filter(|job| !is_finished(job)) else {
            self.backoffs.remove(&work.key);
            return None;
        };
        let mut job: Arc<Job> = job.clone();
        if self.has(Mutant::RetriesFailedIndexes)
            && let Some(spec) = &mut Arc::make_mut(&mut job).spec
        {
            spec.backoff_limit_per_index = spec.backoff_limit_per_index.map(|limit| limit + 3);
        }
        let pods = self.pods(object);
        let known = self.backoffs.get(&work.key).filter(|(uid, _)| uid == object.uid()).map(|(_, backoff)| *backoff);
        let state = State::new(&job, job.spec.as_ref()?, &pods, known, now);
        let plan = if work.stage == 0 { state.manage() } else { state.track() };
        let counts = plan.steps.iter().any(|step| step.op.resource().kind == "Job");
        work.backoff = counts.then(|| (object.uid().to_owned(), state.backoff()));
        Some(plan)
    }

    /// With the live Jobs that the status names and the cache does not show.
    fn plan_cron_job(&self, object: &Object, api: &Api) -> Option<Plan> {
        let mut cron_job = object.cron_job()?.clone();
        if self.has(Mutant::StartsAnyway) {
            Arc::make_mut(&mut cron_job).spec.concurrency_policy = Some("Allow".to_owned());
        }
        let mut jobs: Vec<Arc<Job>> =
            self.caches.owned("Job", object.uid()).filter_map(|job| job.job().cloned()).collect();
        for known in cron_job.status.iter().flat_map(|status| status.active.iter().flatten()) {
            if jobs.iter().any(|job| job.metadata.uid == known.uid) {
                continue;
            }
            let live = api.get("Job", known.name.as_deref().unwrap_or_default()).and_then(|job| job.job());
            jobs.extend(live.filter(|job| job.metadata.uid == known.uid).cloned());
        }
        Some(cronjob::plan(&cron_job, &jobs, &TimeZone::UTC, api.wall()))
    }

    fn plan_budget(&self, object: &Object, now: Timestamp) -> Option<Plan> {
        let budget = object.budget()?;
        let pods = self.caches.list("Pod").filter_map(|pod| pod.pod()).filter(|pod| object.selects(pod));
        let pods: Vec<Arc<PodView>> = pods.cloned().collect();
        let mut scale = Scale::default();
        for pod in pods.iter().filter(|_| needs_scale(budget)) {
            let set = pod.controller().and_then(|owner| self.caches.get("ReplicaSet", &owner.name));
            let Some(set) = set.and_then(|set| set.replica_set()) else {
                return Some(scale_failed(budget, "found no controllers", now));
            };
            let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            scale.controllers.insert(set.metadata.uid.clone().unwrap_or_default(), replicas);
        }
        let mut budget = budget.clone();
        if self.has(Mutant::ForgetsPromises)
            && let Some(status) = &mut Arc::make_mut(&mut budget).status
        {
            status.disrupted_pods = None;
        }
        Some(disruption::plan(&budget, &pods, &scale, now))
    }

    fn plan_node(&mut self, object: &Object, work: &Work, api: &Api) -> Option<Plan> {
        let node = object.node()?;
        let sign = self.signs.get(&work.key).copied().unwrap_or(self.started).max(self.started);
        let silent = Duration::try_from(api.now.duration_since(sign)).unwrap_or_default();
        let pods = self.caches.list("Pod").filter_map(|pod| pod.pod()).filter(|pod| pod.node == work.key);
        let pods: Vec<Arc<PodView>> = pods.cloned().collect();
        let pending = self.pending.entry(work.key.clone()).or_default();
        Some(node_lifecycle::plan(node, &pods, pending, silent, GRACE, seconds(api.wall()).0))
    }

    fn collect(&mut self, api: &Api) -> Plan {
        let pods: Vec<Arc<PodView>> = self.caches.list("Pod").filter_map(|pod| pod.pod().cloned()).collect();
        let homeless = |node: &str| !node.is_empty() && self.caches.get("Node", node).is_none();
        let named: Vec<&str> = pods.iter().map(|pod| pod.node.as_str()).filter(|node| homeless(node)).collect();
        self.missing.retain(|node, _| named.contains(&node.as_str()));
        for node in named {
            self.missing.entry(node.to_owned()).or_insert(api.now);
        }
        let overdue = |since: &Timestamp| api.now.duration_since(*since) >= QUARANTINE;
        let overdue: Vec<&String> =
            self.missing.iter().filter(|(_, since)| overdue(since)).map(|(node, _)| node).collect();
        let waits = overdue.len() < self.missing.len();
        let absent: Vec<String> = overdue.into_iter().filter(|node| api.get("Node", node).is_none()).cloned().collect();
        let mut plan = collect_pods(&pods, &absent, &[], FINISHED_PODS_MAX, seconds(api.wall()).0);
        if waits {
            plan.requeue(Duration::from_secs(10));
        }
        plan
    }

    /// Pods that the object owns, and those that nobody controls.
    fn pods(&self, owner: &Object) -> Vec<Arc<PodView>> {
        let (owned, orphans) = (self.caches.owned("Pod", owner.uid()), self.caches.owned("Pod", ""));
        owned.chain(orphans).filter_map(|pod| pod.pod().cloned()).collect()
    }

    fn revisions(&self, owner: &Object) -> Vec<Revision> {
        let kind = "ControllerRevision";
        let (owned, orphans) = (self.caches.owned(kind, owner.uid()), self.caches.owned(kind, ""));
        owned.chain(orphans).filter_map(|found| found.revision().cloned()).collect()
    }

    /// What the mutant makes of a plan.
    fn mutate(&self, role: Role, stage: usize, object: &Object, plan: &mut Plan, api: &Api) {
        let Some(mutant) = self.mutant else { return };
        match (mutant, role, stage) {
            (Mutant::FreesBeforeCounting, Role::Job, 1) => {
                let ended = self.pods(object).into_iter().filter(|pod| pod.is_finished());
                let freed = ended.flat_map(|pod| orphans::plan(&pod, None).steps);
                plan.steps.splice(0..0, freed);
            }
            (Mutant::CountsTwice, Role::Job, 1) => {
                for step in &mut plan.steps {
                    if let Op::Patch { body, .. } = &mut step.op
                        && let Some(count) = body["status"]["succeeded"].as_u64()
                    {
                        body["status"]["succeeded"] = (count + 1).into();
                    }
                }
            }
            (Mutant::CountsNothing, Role::Job, 1) => *plan = Plan::default(),
            (Mutant::DeletesByForce, Role::NodeLifecycle | Role::StatefulSet, _) => {
                for step in plan.steps.iter_mut().chain(&mut plan.batch) {
                    if let Op::Delete { grace, .. } = &mut step.op {
                        *grace = Some(0);
                    }
                }
            }
            (Mutant::WritesAlways, Role::Deployment, _) => {
                let body = serde_json::json!({ "metadata": { "annotations": { "n": api.revision().to_string() } } });
                plan.push(Op::merge(reconcile::plan::DEPLOYMENTS, crate::api::NAMESPACE, object.name(), body));
            }
            (Mutant::NeverRests, Role::Deployment, _) => plan.requeue(Duration::from_secs(1)),
            _ => {}
        }
    }
}

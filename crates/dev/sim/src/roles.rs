//! The controllers that take part, and the keys that a change wakes: the subscriptions of the shell's controllers.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use reconcile::PodView;
use reconcile::disruption::is_failed;
use reconcile::job::{is_finished, orphans};
use reconcile::ownership::selector_of;

use crate::api::Event;
use crate::cache::Caches;
use crate::object::Object;
use crate::quota;

pub const KINDS: [&str; 13] = [
    "Pod",
    "Node",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "ControllerRevision",
    "PodDisruptionBudget",
    "Namespace",
    "ResourceQuota",
    "HorizontalPodAutoscaler",
];

/// Of the whole cluster; everything else is in the namespace.
pub const CLUSTER_KINDS: [&str; 2] = ["Node", "Namespace"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    JobOrphans,
    CronJob,
    Budget,
    StaleDisruption,
    NodeLifecycle,
    PodCollector,
    Namespace,
    Quota,
}

pub const ROLES: [Role; 13] = [
    Role::Deployment,
    Role::ReplicaSet,
    Role::StatefulSet,
    Role::DaemonSet,
    Role::Job,
    Role::JobOrphans,
    Role::CronJob,
    Role::Budget,
    Role::StaleDisruption,
    Role::NodeLifecycle,
    Role::PodCollector,
    Role::Namespace,
    Role::Quota,
];

/// Changes of a Job's pods that come together are looked at together.
pub const PODS_BATCH: Duration = Duration::from_millis(50);
const COLLECTOR_BATCH: Duration = Duration::from_millis(100);

impl Role {
    /// The kind whose objects are its keys; the pod collector has one key.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
            Self::JobOrphans | Self::StaleDisruption => "Pod",
            Self::Budget => "PodDisruptionBudget",
            Self::NodeLifecycle => "Node",
            Self::PodCollector => "",
            Self::Namespace => "Namespace",
            Self::Quota => "ResourceQuota",
        }
    }

    /// Plans that follow each other in one reconcile.
    pub fn stages(self) -> usize {
        match self {
            Self::ReplicaSet | Self::Job => 2,
            Self::StatefulSet | Self::DaemonSet | Self::Namespace => 3,
            _ => 1,
        }
    }

    /// Whether its timers run for as long as the cluster does.
    pub fn has_endless_timers(self) -> bool {
        matches!(self, Self::NodeLifecycle | Self::CronJob)
    }
}

/// A key to be woken, after a while where changes come in groups.
pub type Wake = (Role, String, Duration);

struct Wakes<'a> {
    caches: &'a Caches,
    found: Vec<Wake>,
}

/// Whom a change of the caches wakes.
pub fn wakes(event: &Event, caches: &Caches) -> Vec<Wake> {
    let mut wakes = Wakes { caches, found: Vec::new() };
    let (kind, name) = &event.name;
    let own = ROLES.into_iter().find(|role| role.kind() == *kind && *kind != "Pod");
    if let Some(role) = own.filter(|role| !matches!(role, Role::Budget | Role::Quota) || event.new.is_some()) {
        let delay = if role == Role::Quota { quota::delay(event) } else { Duration::ZERO };
        wakes.found.push((role, name.clone(), delay));
    }
    let quotas = caches.names("ResourceQuota");
    if !quotas.is_empty() && quota::frees(event) {
        wakes.found.extend(quotas.into_iter().map(|name| (Role::Quota, name, quota::GATHER)));
    }
    match *kind {
        "Pod" => wakes.pod(event),
        "ReplicaSet" => wakes.replica_set(event),
        "Job" => wakes.job(event),
        "Node" => wakes.node(event),
        "ControllerRevision" if event.old.is_some() => {
            for object in sides(event) {
                wakes.owner(object, Role::StatefulSet, Duration::ZERO);
                wakes.owner(object, Role::DaemonSet, Duration::ZERO);
            }
        }
        _ => {}
    }
    wakes.found
}

fn sides(event: &Event) -> impl Iterator<Item = &Arc<Object>> {
    event.old.iter().chain(&event.new)
}

impl Wakes<'_> {
    fn add(&mut self, role: Role, key: &str) {
        self.found.push((role, key.to_owned(), Duration::ZERO));
    }

    fn owner(&mut self, object: &Object, role: Role, delay: Duration) {
        if let Some(owner) = object.owner_of(role.kind()) {
            self.found.push((role, owner.name.clone(), delay));
        }
    }

    /// An owned object wakes its owner, an orphan everybody of the kind who could adopt it.
    fn adopters(&mut self, object: &Object, role: Role, delay: Duration) {
        if object.controller.is_some() {
            return self.owner(object, role, delay);
        }
        let labels = object.value["metadata"]["labels"].clone();
        let labels: std::collections::BTreeMap<String, String> = serde_json::from_value(labels).unwrap_or_default();
        for owner in self.caches.list(role.kind()) {
            let selector = selector(owner).and_then(selector_of);
            if selector.is_some_and(|selector| selector.matches(&labels)) {
                self.found.push((role, owner.name().to_owned(), delay));
            }
        }
    }

    fn pod(&mut self, event: &Event) {
        for pod in sides(event) {
            for role in [Role::ReplicaSet, Role::StatefulSet, Role::DaemonSet] {
                self.adopters(pod, role, Duration::ZERO);
            }
            self.adopters(pod, Role::Job, PODS_BATCH);
        }
        let view = |side: &Option<Arc<Object>>| side.as_ref().and_then(|pod| pod.pod().cloned());
        let (old, new) = (view(&event.old), view(&event.new));
        if let (Some(old), None) = (&event.old, &event.new)
            && let Some(set) = old.owner_of("ReplicaSet").and_then(|set| self.caches.get("ReplicaSet", &set.name))
        {
            let set = set.clone();
            self.owner(&set, Role::Deployment, Duration::ZERO);
        }
        for budget in self.caches.list("PodDisruptionBudget") {
            if old.iter().chain(&new).any(|pod| budget.selects(pod)) {
                self.found.push((Role::Budget, budget.name().to_owned(), Duration::ZERO));
            }
        }
        if let Some(new) = new {
            self.pod_is(old.as_deref(), &new);
        }
    }

    fn pod_is(&mut self, old: Option<&PodView>, new: &PodView) {
        if is_suspect(new, self.caches) {
            self.add(Role::JobOrphans, &new.name);
        }
        if new.disruption.is_some() {
            self.add(Role::StaleDisruption, &new.name);
        }
        let moved =
            old.is_none_or(|old| old.node != new.node || old.ready != new.ready || old.tolerations != new.tolerations);
        if !new.node.is_empty() && moved {
            self.add(Role::NodeLifecycle, &new.node);
        }
        let homeless = !new.node.is_empty() && self.caches.get("Node", &new.node).is_none();
        if homeless || new.is_finished() || (new.node.is_empty() && new.deletion.is_some()) {
            self.found.push((Role::PodCollector, String::new(), COLLECTOR_BATCH));
        }
    }

    fn replica_set(&mut self, event: &Event) {
        for set in sides(event) {
            self.adopters(set, Role::Deployment, Duration::ZERO);
        }
        if event.old.is_none() {
            // A pod may be seen before its controller is: what failed for that is tried again.
            let failed = self.caches.list("PodDisruptionBudget").filter_map(|budget| budget.budget());
            let failed = failed.filter(|budget| is_failed(budget)).filter_map(|budget| budget.metadata.name.clone());
            self.found.extend(failed.map(|name| (Role::Budget, name, Duration::ZERO)));
        }
    }

    fn job(&mut self, event: &Event) {
        for job in sides(event) {
            self.owner(job, Role::CronJob, Duration::ZERO);
        }
        let over = event.new.as_ref().is_none_or(|job| job.job().is_some_and(|job| is_finished(job)));
        if let Some(job) = event.new.as_ref().or(event.old.as_ref()).filter(|_| over) {
            let pods = self.caches.owned("Pod", job.uid()).map(|pod| pod.name().to_owned());
            self.found.extend(pods.map(|name| (Role::JobOrphans, name, Duration::ZERO)));
        }
    }

    fn node(&mut self, event: &Event) {
        let placing = |side: &Option<Arc<Object>>| {
            let node = side.as_ref()?;
            Some((node.value["metadata"]["labels"].clone(), node.value["spec"]["taints"].clone()))
        };
        if placing(&event.old) != placing(&event.new) {
            let sets = self.caches.names("DaemonSet");
            self.found.extend(sets.into_iter().map(|name| (Role::DaemonSet, name, Duration::ZERO)));
        }
        if event.new.is_none() {
            self.add(Role::PodCollector, "");
        }
    }
}

/// Whether the pod may wait for a Job that never counts it.
pub fn is_suspect(pod: &PodView, caches: &Caches) -> bool {
    let job = pod.controller().and_then(|owner| caches.get("Job", &owner.name));
    orphans::is_suspect(pod, job.and_then(|job| job.job()))
}

fn selector(object: &Object) -> Option<&LabelSelector> {
    use crate::object::View;
    match &object.view {
        View::ReplicaSet(set) => set.spec.as_ref().map(|spec| &spec.selector),
        View::Deployment(deployment) => deployment.spec.as_ref().map(|spec| &spec.selector),
        View::StatefulSet(set) => set.spec.as_ref().map(|spec| &spec.selector),
        View::DaemonSet(set) => set.spec.as_ref().map(|spec| &spec.selector),
        View::Job(job) => job.spec.as_ref()?.selector.as_ref(),
        _ => None,
    }
}

//! A stored object: its JSON, what everybody asks of it, and the typed views that controllers, scheduler and nodes take.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use placement::{Budget, NodeSpec, PodInfo};
use reconcile::PodView;
use serde::Deserialize;
use serde_json::Value;

/// Kind and name: the simulated cluster has one namespace.
pub type Name = (&'static str, String);

/// The controlling owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub kind: String,
    pub name: String,
    pub uid: String,
}

#[derive(Debug)]
pub struct Object {
    pub value: Value,
    pub view: View,
    pub uid: String,
    pub controller: Option<Owner>,
    pub deleting: bool,
}

/// What the watchers of a kind keep of an object.
#[derive(Debug)]
pub enum View {
    Pod(Arc<PodView>, Arc<PodInfo>),
    Node(Arc<Node>, Arc<NodeSpec>),
    ReplicaSet(Arc<ReplicaSet>),
    Deployment(Arc<Deployment>),
    StatefulSet(Arc<StatefulSet>),
    DaemonSet(Arc<DaemonSet>),
    Job(Arc<Job>),
    CronJob(Arc<CronJob>),
    Revision(Arc<ControllerRevision>),
    Budget(Arc<PodDisruptionBudget>, Budget),
    Namespace(Arc<Namespace>),
    Autoscaler(Arc<HorizontalPodAutoscaler>),
    /// Quotas are taken as they are stored.
    Quota,
}

fn typed<'a, T: Deserialize<'a>>(value: &'a Value) -> T {
    match T::deserialize(value) {
        Ok(typed) => typed,
        Err(error) => panic!("not of its kind: {error}: {value}"),
    }
}

fn view(kind: &str, value: &Value) -> View {
    match kind {
        "Pod" => {
            let pod: Pod = typed(value);
            View::Pod(Arc::new(PodView::from_pod(pod.clone())), Arc::new(PodInfo::new(pod)))
        }
        "Node" => {
            let node: Node = typed(value);
            View::Node(Arc::new(node.clone()), Arc::new(NodeSpec::new(node)))
        }
        "PodDisruptionBudget" => {
            let budget: PodDisruptionBudget = typed(value);
            let counts = Budget::new(&budget);
            View::Budget(Arc::new(budget), counts)
        }
        "ReplicaSet" => View::ReplicaSet(Arc::new(typed(value))),
        "Deployment" => View::Deployment(Arc::new(typed(value))),
        "StatefulSet" => View::StatefulSet(Arc::new(typed(value))),
        "DaemonSet" => View::DaemonSet(Arc::new(typed(value))),
        "Job" => View::Job(Arc::new(typed(value))),
        "CronJob" => View::CronJob(Arc::new(typed(value))),
        "ControllerRevision" => View::Revision(Arc::new(typed(value))),
        "Namespace" => View::Namespace(Arc::new(typed(value))),
        "HorizontalPodAutoscaler" => View::Autoscaler(Arc::new(typed(value))),
        "ResourceQuota" => View::Quota,
        other => panic!("a kind that is not simulated: {other}"),
    }
}

fn text_at(value: &Value, path: &str) -> String {
    at(value, path).as_str().unwrap_or_default().to_owned()
}

/// The value at a path of fields, as `/metadata/name`; null where there is none.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('/').filter(|field| !field.is_empty()).fold(value, |value, field| &value[field])
}

impl Object {
    pub fn new(kind: &str, value: Value) -> Self {
        let meta = &value["metadata"];
        let owners = meta["ownerReferences"].as_array();
        let controller = owners.and_then(|owners| owners.iter().find(|owner| owner["controller"] == true));
        let controller = controller.map(|owner| Owner {
            kind: text_at(owner, "kind"),
            name: text_at(owner, "name"),
            uid: text_at(owner, "uid"),
        });
        let deleting = !meta["deletionTimestamp"].is_null();
        Self { view: view(kind, &value), uid: text_at(meta, "uid"), controller, deleting, value }
    }

    pub fn text(&self, path: &str) -> &str {
        at(&self.value, path).as_str().unwrap_or_default()
    }

    pub fn number(&self, path: &str) -> u64 {
        at(&self.value, path).as_u64().unwrap_or(0)
    }

    pub fn name(&self) -> &str {
        self.text("metadata/name")
    }

    pub fn uid(&self) -> &str {
        &self.uid
    }

    pub fn is_deleting(&self) -> bool {
        self.deleting
    }

    pub fn pod(&self) -> Option<&Arc<PodView>> {
        if let View::Pod(view, _) = &self.view { Some(view) } else { None }
    }

    pub fn node(&self) -> Option<&Arc<Node>> {
        if let View::Node(node, _) = &self.view { Some(node) } else { None }
    }

    pub fn budget(&self) -> Option<&Arc<PodDisruptionBudget>> {
        if let View::Budget(budget, _) = &self.view { Some(budget) } else { None }
    }

    /// Whether this budget selects the pod.
    pub fn selects(&self, pod: &PodView) -> bool {
        let View::Budget(_, budget) = &self.view else { return false };
        budget.selector.as_ref().is_some_and(|selector| selector.matches(&*pod.labels))
    }

    /// The uid of the controlling owner.
    pub fn owner(&self) -> Option<&str> {
        self.controller.as_ref().map(|owner| owner.uid.as_str())
    }

    /// The controlling owner, if it is of this kind.
    pub fn owner_of(&self, kind: &str) -> Option<&Owner> {
        self.controller.as_ref().filter(|owner| owner.kind == kind)
    }
}

macro_rules! typed_views {
    ($($name:ident $variant:ident $kind:ty;)*) => {
        impl Object {$(
            pub fn $name(&self) -> Option<&Arc<$kind>> {
                if let View::$variant(view) = &self.view { Some(view) } else { None }
            }
        )*}
    };
}

typed_views! {
    replica_set ReplicaSet ReplicaSet;
    deployment Deployment Deployment;
    stateful_set StatefulSet StatefulSet;
    daemon_set DaemonSet DaemonSet;
    job Job Job;
    cron_job CronJob CronJob;
    revision Revision ControllerRevision;
    namespace Namespace Namespace;
    autoscaler Autoscaler HorizontalPodAutoscaler;
}

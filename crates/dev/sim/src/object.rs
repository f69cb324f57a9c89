//! A stored object: its JSON and the typed views that controllers, scheduler and nodes take of it.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use placement::{NodeSpec, PodInfo};
use reconcile::PodView;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Kind and name: the simulated cluster has one namespace.
pub type Name = (&'static str, String);

#[derive(Debug)]
pub struct Object {
    pub value: Value,
    pub view: View,
}

/// What the watchers of a kind keep of an object.
#[derive(Debug)]
pub enum View {
    Pod(Arc<PodView>, Box<PodInfo>),
    Node(Arc<Node>, Arc<NodeSpec>),
    ReplicaSet(Arc<ReplicaSet>),
    Deployment(Arc<Deployment>),
    StatefulSet(Arc<StatefulSet>),
    DaemonSet(Arc<DaemonSet>),
    Job(Arc<Job>),
    Revision(Arc<ControllerRevision>),
    Budget(Arc<PodDisruptionBudget>),
}

fn typed<T: DeserializeOwned>(value: &Value) -> Arc<T> {
    match serde_json::from_value(value.clone()) {
        Ok(typed) => Arc::new(typed),
        Err(error) => panic!("not of its kind: {error}: {value}"),
    }
}

impl Object {
    pub fn new(kind: &str, value: Value) -> Self {
        let view = match kind {
            "Pod" => {
                let pod: Arc<Pod> = typed(&value);
                View::Pod(Arc::new(PodView::from_pod((*pod).clone())), Box::new(PodInfo::new((*pod).clone())))
            }
            "Node" => {
                let node: Arc<Node> = typed(&value);
                let spec = Arc::new(NodeSpec::new((*node).clone()));
                View::Node(node, spec)
            }
            "ReplicaSet" => View::ReplicaSet(typed(&value)),
            "Deployment" => View::Deployment(typed(&value)),
            "StatefulSet" => View::StatefulSet(typed(&value)),
            "DaemonSet" => View::DaemonSet(typed(&value)),
            "Job" => View::Job(typed(&value)),
            "ControllerRevision" => View::Revision(typed(&value)),
            "PodDisruptionBudget" => View::Budget(typed(&value)),
            other => panic!("a kind that is not simulated: {other}"),
        };
        Self { value, view }
    }

    pub fn text(&self, path: &str) -> &str {
        self.value.pointer(path).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn uid(&self) -> &str {
        self.text("/metadata/uid")
    }

    pub fn is_deleting(&self) -> bool {
        self.value.pointer("/metadata/deletionTimestamp").is_some()
    }

    pub fn pod(&self) -> Option<&Arc<PodView>> {
        if let View::Pod(view, _) = &self.view { Some(view) } else { None }
    }

    /// The uid of the controlling owner.
    pub fn owner(&self) -> Option<&str> {
        let owners = self.value.pointer("/metadata/ownerReferences")?.as_array()?;
        owners.iter().find(|owner| owner["controller"] == true)?["uid"].as_str()
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
    revision Revision ControllerRevision;
    budget Budget PodDisruptionBudget;
}

impl Object {
    pub fn node(&self) -> Option<&Arc<Node>> {
        if let View::Node(node, _) = &self.view { Some(node) } else { None }
    }
}

//! The language of plans: API writes, the events that report them, and when to look again.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Map, Value, json};

/// A collection of the API that controllers write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    pub api_version: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
}

macro_rules! resources {
    ($($name:ident = $version:literal $plural:literal $kind:literal;)*) => {
        $(pub const $name: Resource = Resource { api_version: $version, plural: $plural, kind: $kind };)*
    };
}

resources! {
    PODS = "v1" "pods" "Pod";
    NODES = "v1" "nodes" "Node";
    NAMESPACES = "v1" "namespaces" "Namespace";
    CONFIG_MAPS = "v1" "configmaps" "ConfigMap";
    SERVICE_ACCOUNTS = "v1" "serviceaccounts" "ServiceAccount";
    SERVICES = "v1" "services" "Service";
    SERVICE_CIDRS = "networking.k8s.io/v1" "servicecidrs" "ServiceCIDR";
    IP_ADDRESSES = "networking.k8s.io/v1" "ipaddresses" "IPAddress";
    ENDPOINTS = "v1" "endpoints" "Endpoints";
    REPLICATION_CONTROLLERS = "v1" "replicationcontrollers" "ReplicationController";
    REPLICA_SETS = "apps/v1" "replicasets" "ReplicaSet";
    JOBS = "batch/v1" "jobs" "Job";
    CRON_JOBS = "batch/v1" "cronjobs" "CronJob";
    DISRUPTION_BUDGETS = "policy/v1" "poddisruptionbudgets" "PodDisruptionBudget";
    DEPLOYMENTS = "apps/v1" "deployments" "Deployment";
    STATEFUL_SETS = "apps/v1" "statefulsets" "StatefulSet";
    DAEMON_SETS = "apps/v1" "daemonsets" "DaemonSet";
    CONTROLLER_REVISIONS = "apps/v1" "controllerrevisions" "ControllerRevision";
    PERSISTENT_VOLUME_CLAIMS = "v1" "persistentvolumeclaims" "PersistentVolumeClaim";
    PERSISTENT_VOLUMES = "v1" "persistentvolumes" "PersistentVolume";
    RESOURCE_QUOTAS = "v1" "resourcequotas" "ResourceQuota";
    ENDPOINT_SLICES = "discovery.k8s.io/v1" "endpointslices" "EndpointSlice";
    HORIZONTAL_POD_AUTOSCALERS = "autoscaling/v2" "horizontalpodautoscalers" "HorizontalPodAutoscaler";
}

/// How a patch body reaches the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// A merge patch that the server applies.
    Merge,
    /// A strategic merge patch that the server applies.
    Strategic,
    /// A merge patch that the controller applies to the live object and writes back whole, bound to the revision it
    /// read: the default roles give most controllers `update` and not `patch`.
    Update,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Create {
        resource: Resource,
        namespace: String,
        object: Value,
    },
    Delete {
        resource: Resource,
        namespace: String,
        name: String,
        /// Delete only this incarnation.
        uid: Option<String>,
        /// Seconds until force; `None` leaves it to the object.
        grace: Option<i64>,
    },
    Patch {
        resource: Resource,
        namespace: String,
        name: String,
        subresource: Option<&'static str>,
        kind: PatchKind,
        body: Value,
    },
}

impl Op {
    /// A merge patch of the object itself.
    pub fn merge(resource: Resource, namespace: &str, name: &str, body: Value) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self::Patch { resource, namespace, name, subresource: None, kind: PatchKind::Merge, body }
    }

    /// As [`Op::merge`], written as an update.
    pub fn update(resource: Resource, namespace: &str, name: &str, body: Value) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self::Patch { resource, namespace, name, subresource: None, kind: PatchKind::Update, body }
    }

    /// The difference of the object's status, written as an update.
    pub fn update_status(resource: Resource, namespace: &str, name: &str, status: Value) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let body = json!({ "status": status });
        Self::Patch { resource, namespace, name, subresource: Some("status"), kind: PatchKind::Update, body }
    }

    pub fn resource(&self) -> Resource {
        match self {
            Self::Create { resource, .. } | Self::Delete { resource, .. } | Self::Patch { resource, .. } => *resource,
        }
    }
}

/// An event to record. `{name}` in the message becomes the name of the object written, `{error}` what the API said.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    pub about: ObjectReference,
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Note {
    pub fn normal(about: &ObjectReference, reason: &'static str, message: impl Into<String>) -> Self {
        Self { about: about.clone(), warning: false, reason, message: message.into() }
    }

    pub fn warning(about: &ObjectReference, reason: &'static str, message: impl Into<String>) -> Self {
        Self { about: about.clone(), warning: true, reason, message: message.into() }
    }
}

/// A write with the events of its success and failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub op: Op,
    pub done: Option<Note>,
    pub failed: Option<Note>,
}

impl From<Op> for Step {
    fn from(op: Op) -> Self {
        Self { op, done: None, failed: None }
    }
}

impl Step {
    #[must_use]
    pub fn on_success(mut self, note: Note) -> Self {
        self.done = Some(note);
        self
    }

    #[must_use]
    pub fn on_failure(mut self, note: Note) -> Self {
        self.failed = Some(note);
        self
    }
}

/// What a reconcile wants done. Run again on an unchanged world, it must be empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order, ending at the first failure.
    pub steps: Vec<Step>,
    /// Then these, independent of each other, in batches that double while they succeed.
    pub batch: Vec<Step>,
    pub notes: Vec<Note>,
    /// Look again then, even if nothing changes.
    pub requeue_after: Option<Duration>,
}

impl Plan {
    pub fn push(&mut self, step: impl Into<Step>) {
        self.steps.push(step.into());
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.batch.is_empty()
    }

    /// Keeps the earlier of two wake-up times.
    pub fn requeue(&mut self, after: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(after, |known| known.min(after)));
    }
}

/// The JSON merge patch that turns `old` into `new`; `None` when they are equal.
pub fn merge_difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return Some(new.clone()) };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            None => {
                patch.insert(key.clone(), value.clone());
            }
            Some(known) => {
                if let Some(difference) = merge_difference(known, value) {
                    patch.insert(key.clone(), difference);
                }
            }
        }
    }
    Some(Value::Object(patch))
}

/// Applies a JSON merge patch (RFC 7386).
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

/// The merge patch between two typed values; `None` when equal.
pub fn difference<T: serde::Serialize>(old: &T, new: &T) -> Option<Value> {
    merge_difference(&to_value(old), &to_value(new))
}

/// API types serialize without failure: they hold no maps with other than string keys.
pub fn to_value<T: serde::Serialize + ?Sized>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_removes_changes_and_adds() {
        let old = json!({ "a": 1, "b": { "c": 1, "d": 2 }, "e": [1] });
        let new = json!({ "b": { "c": 1, "d": 3 }, "e": [1], "f": true });
        assert_eq!(merge_difference(&old, &new), Some(json!({ "a": null, "b": { "d": 3 }, "f": true })));
        assert_eq!(merge_difference(&new, &new), None);
        let mut merged = old.clone();
        merge(&mut merged, &merge_difference(&old, &new).unwrap());
        assert_eq!(merged, new);
    }
}

//! The small view of a Pod that all controllers share.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Affinity, PersistentVolumeClaimTemplate, Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::job::facts::JobFacts;
use crate::pool::Pool;

/// A pod as controllers see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodView {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    /// Shared with all pods that have the same.
    pub labels: Arc<BTreeMap<String, String>>,
    pub owners: Vec<OwnerReference>,
    pub created: Option<Timestamp>,
    pub deletion: Option<Timestamp>,
    pub finalizers: Vec<String>,
    pub node: String,
    /// The node it runs on or, before it is bound, the one its affinity names (as pods of DaemonSets do).
    pub target_node: String,
    /// Volumes that are claims: volume name, claim name.
    pub claims: Vec<(String, String)>,
    /// Volumes that live as long as the pod, by name; the claim of each is named after both.
    pub ephemeral: Vec<(String, PersistentVolumeClaimTemplate)>,
    /// Its kubelet is done with it, or it was deleted by force.
    pub shut_down: bool,
    /// The API's name of the phase; empty before there is one.
    pub phase: &'static str,
    pub ready: bool,
    /// When the Ready condition last changed.
    pub ready_since: Option<Timestamp>,
    /// A Ready condition exists, whatever it says.
    pub has_ready: bool,
    pub restarts: i32,
    pub deletion_cost: i32,
    pub ips: Vec<String>,
    pub hostname: String,
    pub subdomain: String,
    /// Container ports that have a name: name, protocol, number.
    pub named_ports: Vec<(String, String, i32)>,
    pub tolerations: Vec<Toleration>,
    pub daemon: bool,
    /// Of pods that a Job controls: what counting them needs.
    pub job: Option<Box<JobFacts>>,
    /// Since when the condition DisruptionTarget promises that somebody other than the kubelet ends this pod.
    pub disruption: Option<Timestamp>,
}

impl PodView {
    pub fn from_pod(pod: Pod) -> Self {
        let of_job = |owner: &OwnerReference| owner.controller == Some(true) && owner.kind == "Job";
        let job = pod.metadata.owner_references.iter().flatten().any(of_job).then(|| Box::new(JobFacts::of(&pod)));
        let (meta, spec, status) = (pod.metadata, pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
        let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
        let mut ips: Vec<String> = status.pod_ips.into_iter().flatten().map(|ip| ip.ip).collect();
        if ips.is_empty() {
            ips.extend(status.pod_ip);
        }
        // Sidecars (restartable init containers) expose ports as well.
        let sidecars = spec.init_containers.into_iter().flatten();
        let containers = spec.containers.into_iter().chain(sidecars.filter(|c| c.restart_policy.is_some()));
        let named_ports = containers
            .flat_map(|container| container.ports.unwrap_or_default())
            .filter_map(|port| {
                let protocol = port.protocol.unwrap_or_else(|| "TCP".to_owned());
                Some((port.name?, protocol, port.container_port))
            })
            .collect();
        let cost = meta.annotations.as_ref().and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost"));
        let owners = meta.owner_references.unwrap_or_default();
        let disruption = status.conditions.iter().flatten().find(|condition| {
            let by_kubelet = condition.reason.as_deref() == Some("TerminationByKubelet");
            condition.type_ == "DisruptionTarget" && condition.status == "True" && !by_kubelet
        });
        let node = spec.node_name.unwrap_or_default();
        let target = if node.is_empty() { named_node(spec.affinity.as_ref()) } else { Some(node.as_str()) };
        let target_node = target.unwrap_or_default().to_owned();
        let shut_down = meta.deletion_timestamp.is_some() && meta.deletion_grace_period_seconds == Some(0);
        let (mut claims, mut ephemeral) = (Vec::new(), Vec::new());
        for volume in spec.volumes.into_iter().flatten() {
            if let Some(claim) = volume.persistent_volume_claim {
                claims.push((volume.name, claim.claim_name));
            } else if let Some(template) = volume.ephemeral.and_then(|source| source.volume_claim_template) {
                ephemeral.push((volume.name, template));
            }
        }
        Self {
            job,
            disruption: disruption.and_then(|condition| condition.last_transition_time.as_ref()).map(|time| time.0),
            ready: ready.is_some_and(|condition| condition.status == "True"),
            ready_since: ready.and_then(|condition| condition.last_transition_time.as_ref()).map(|time| time.0),
            has_ready: ready.is_some(),
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            labels: shared(meta.labels.unwrap_or_default()),
            daemon: owners.iter().any(|owner| owner.controller == Some(true) && owner.kind == "DaemonSet"),
            owners,
            created: meta.creation_timestamp.map(|time| time.0),
            deletion: meta.deletion_timestamp.map(|time| time.0),
            finalizers: meta.finalizers.unwrap_or_default(),
            node,
            target_node,
            claims,
            ephemeral,
            shut_down,
            phase: phase(status.phase.as_deref().unwrap_or_default()),
            restarts: status.container_statuses.iter().flatten().map(|c| c.restart_count).max().unwrap_or(0),
            deletion_cost: cost.and_then(|cost| cost.parse().ok()).unwrap_or(0),
            ips,
            hostname: spec.hostname.unwrap_or_default(),
            subdomain: spec.subdomain.unwrap_or_default(),
            named_ports,
            tolerations: spec.tolerations.unwrap_or_default(),
        }
    }

    /// Succeeded or Failed: it will never run again.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, "Succeeded" | "Failed")
    }

    /// Counts as a replica: neither finished nor being deleted.
    pub fn is_active(&self) -> bool {
        !self.is_finished() && self.deletion.is_none()
    }

    /// Ready for at least `min_ready_seconds`.
    pub fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.ready
            && (min_ready_seconds <= 0
                || self.available_at(min_ready_seconds).is_some_and(|available| available <= now))
    }

    /// When a ready pod becomes available.
    pub fn available_at(&self, min_ready_seconds: i32) -> Option<Timestamp> {
        let since = self.ready.then_some(self.ready_since).flatten()?;
        since.checked_add(SignedDuration::from_secs(i64::from(min_ready_seconds))).ok()
    }

    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owners.iter().find(|owner| owner.controller == Some(true))
    }
}

/// One copy of the same labels: the many pods of one template cost neither their memory nor a look at each.
fn shared(labels: BTreeMap<String, String>) -> Arc<BTreeMap<String, String>> {
    static LABELS: LazyLock<Mutex<Pool<BTreeMap<String, String>>>> = LazyLock::new(Mutex::default);
    LABELS.lock().unwrap_or_else(PoisonError::into_inner).share(labels)
}

fn phase(name: &str) -> &'static str {
    match name {
        "" => "",
        "Pending" => "Pending",
        "Running" => "Running",
        "Succeeded" => "Succeeded",
        "Failed" => "Failed",
        _ => "Unknown",
    }
}

/// The one node that a required node affinity names by its field `metadata.name`.
fn named_node(affinity: Option<&Affinity>) -> Option<&str> {
    let required = affinity?.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let field = fields.find(|field| field.key == "metadata.name" && field.operator == "In")?;
    match field.values.as_deref() {
        Some([node]) => Some(node),
        _ => None,
    }
}

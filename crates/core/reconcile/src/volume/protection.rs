//! Protection of what is in use: a claim goes when no pod uses it, a volume when no claim is bound to it.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::{CLAIM_PROTECTION, VOLUME_PROTECTION, ephemeral, name, namespace};
use crate::PodView;
use crate::plan::{Op, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, Plan, Resource};

/// Whether the pod keeps the claim. One without a node does not: no kubelet starts a pod whose claim is going.
pub fn uses(pod: &PodView, claim: &PersistentVolumeClaim) -> bool {
    let own = name(&claim.metadata);
    let is_ephemeral = || {
        let named = pod.ephemeral.iter().any(|(volume, _)| ephemeral::claim_name(&pod.name, volume) == own);
        named && ephemeral::is_owned_by(claim, pod)
    };
    !pod.node.is_empty() && (pod.claims.iter().any(|(_, claim)| claim == own) || (!pod.shut_down && is_ephemeral()))
}

/// Adds or removes the finalizer of a claim.
pub fn claim(claim: &PersistentVolumeClaim, is_used: bool) -> Plan {
    finalizer(PERSISTENT_VOLUME_CLAIMS, &claim.metadata, CLAIM_PROTECTION, is_used)
}

/// Adds or removes the finalizer of a volume.
pub fn volume(volume: &PersistentVolume) -> Plan {
    let bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    finalizer(PERSISTENT_VOLUMES, &volume.metadata, VOLUME_PROTECTION, bound)
}

fn finalizer(resource: Resource, meta: &ObjectMeta, finalizer: &str, is_used: bool) -> Plan {
    let mut plan = Plan::default();
    let has = meta.finalizers.iter().flatten().any(|known| known == finalizer);
    let leaving = meta.deletion_timestamp.is_some();
    let mut wanted: Vec<&str> = meta.finalizers.iter().flatten().map(String::as_str).collect();
    if leaving && has && !is_used {
        wanted.retain(|known| *known != finalizer);
    } else if !leaving && !has {
        wanted.push(finalizer);
    } else {
        return plan;
    }
    let body = json!({"metadata": {"resourceVersion": meta.resource_version, "finalizers": wanted}});
    plan.push(Op::update(resource, namespace(meta), name(meta), body));
    plan
}

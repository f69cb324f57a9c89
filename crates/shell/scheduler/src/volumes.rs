//! Before a pod is bound its volumes are: writes what placement decided about them, and waits until both sides of each
//! binding are written.

use std::sync::Arc;
use std::time::Duration;

use client::{Cached, Informer};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use kube::api::{Patch, PatchParams};
use placement::PodInfo;
use placement::volumes::{ClaimInfo, VolumePlan};
use serde_json::json;

/// As upstream's bindTimeoutSeconds.
const BOUND_WITHIN: Duration = Duration::from_secs(600);
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Why volumes were not bound.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("{0}")]
    Undone(String),
    #[error("timed out waiting for the condition")]
    Late,
}

#[derive(Clone)]
pub struct VolumeBinder {
    pub client: kube::Client,
    pub claims: Informer<Arc<ClaimInfo>>,
}

impl VolumeBinder {
    /// Writes the plan and waits until all claims of the pod are bound.
    pub async fn bind(&self, pod: &Cached<PodInfo>, node: &str, plan: &VolumePlan) -> Result<(), VolumeError> {
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        for (volume, claim) in &plan.bind {
            let reference = json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace, "name": claim.name,
                "uid": claim.uid,
            });
            // Bound to the version that was chosen from: two claims never get one volume.
            let mut body = json!({
                "metadata": {"resourceVersion": volume.resource_version}, "spec": {"claimRef": reference},
            });
            if volume.claim.is_none() {
                body["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
            }
            volumes.patch(&volume.name, &PatchParams::default(), &Patch::Merge(body)).await?;
        }
        let mut written = 0;
        for claim in plan.provision.iter().filter(|claim| claim.selected_node.is_none()) {
            let body = json!({"metadata": {"uid": claim.uid, "annotations": {SELECTED_NODE: node}}});
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &claim.namespace);
            let answer = claims.patch(&claim.name, &PatchParams::default(), &Patch::Merge(body)).await?;
            let version = answer.metadata.resource_version.and_then(|version| version.parse::<u64>().ok());
            written = written.max(version.unwrap_or(0));
        }
        tokio::time::timeout(BOUND_WITHIN, self.bound(pod, node, plan, written)).await.map_err(|_| VolumeError::Late)?
    }

    async fn bound(
        &self,
        pod: &Cached<PodInfo>,
        node: &str,
        plan: &VolumePlan,
        written: u64,
    ) -> Result<(), VolumeError> {
        let mut changes = self.claims.changes();
        // What the cache says is only news once it shows the own writes.
        self.claims.reached(written, BOUND_WITHIN).await;
        loop {
            changes.mark_unchanged();
            if self.all_bound(pod, node, plan)? {
                return Ok(());
            }
            if changes.changed().await.is_err() {
                return Err(VolumeError::Undone("the scheduler stops".to_owned()));
            }
        }
    }

    fn all_bound(&self, pod: &Cached<PodInfo>, node: &str, plan: &VolumePlan) -> Result<bool, VolumeError> {
        let undone = |why: String| Err(VolumeError::Undone(why));
        let mut all = true;
        for used in &pod.claims {
            let Some(claim) = self.claims.get(&pod.key.namespace, &used.claim) else {
                return undone(format!("persistentvolumeclaim {:?} not found", used.claim));
            };
            if claim.bound && !claim.volume.is_empty() {
                continue;
            }
            all = false;
            if plan.provision.iter().any(|planned| planned.uid == claim.uid) {
                match &claim.selected_node {
                    None => return undone(format!("selectedNode annotation reset for PVC {:?}", used.claim)),
                    Some(other) if other != node => {
                        let why = "provisioning failed for PVC";
                        return undone(format!("{why} {:?}: its node is {other:?} now", used.claim));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(all)
    }
}

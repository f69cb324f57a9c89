//! Writes a pod's status to the API when it differs from what the API has.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

/// Delay after a write that failed.
const RETRY: SignedDuration = SignedDuration::from_secs(1);

/// The writer of one pod's status.
pub struct StatusWriter {
    client: Client,
    /// What was written last, and to the pod of which uid.
    written: Option<(Option<String>, Value)>,
    retry_at: Option<Timestamp>,
}

/// Fields of the status that others write.
const FOREIGN: [&str; 4] = ["nominatedNodeName", "resourceClaimStatuses", "resize", "extendedResourceClaimStatus"];

impl StatusWriter {
    /// A writer that has written nothing yet.
    pub fn new(client: Client) -> StatusWriter {
        StatusWriter { client, written: None, retry_at: None }
    }

    /// When a failed write should be tried again.
    pub fn retry_at(&self) -> Option<Timestamp> {
        self.retry_at
    }

    /// Writes if needed; returns the pod as the API has it then.
    pub async fn write(&mut self, pod: &Pod, status: PodStatus) -> Option<Pod> {
        let mut wanted = serde_json::to_value(&status).ok()?;
        let held = serde_json::to_value(pod.status.clone().unwrap_or_default()).unwrap_or_default();
        if let Some(map) = wanted.as_object_mut() {
            FOREIGN.iter().for_each(|name| drop(map.remove(*name)));
        }
        // the cached pod may be older than our own last write
        let same = self.written.as_ref().is_some_and(|(uid, value)| *uid == pod.metadata.uid && *value == wanted);
        if same && self.retry_at.is_none() {
            return None;
        }
        let mut patch = wanted.clone();
        if let (Some(patch), Some(held)) = (patch.as_object_mut(), held.as_object()) {
            let gone = held.keys().filter(|k| !wanted.as_object().is_some_and(|w| w.contains_key(*k)));
            for key in gone.filter(|k| !FOREIGN.contains(&k.as_str())).cloned().collect::<Vec<_>>() {
                patch.insert(key, Value::Null);
            }
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let body = json!({"metadata": {"uid": pod.metadata.uid}, "status": patch});
        self.retry_at = None;
        match pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&body)).await {
            Ok(pod) => {
                self.written = Some((pod.metadata.uid.clone(), wanted));
                return Some(pod);
            }
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {
                tracing::debug!(pod = name, "status not written: {}", answer.message);
                self.written = Some((pod.metadata.uid.clone(), wanted));
            }
            Err(error) => {
                tracing::warn!(pod = name, "cannot write the pod's status, trying again: {error}");
                self.retry_at = Timestamp::now().checked_add(RETRY).ok();
            }
        }
        None
    }
}

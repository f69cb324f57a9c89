//! What the scheduler writes: bindings, events and the PodScheduled condition.

use std::sync::Arc;

use client::{Cached, EventKind, ObjectKey, Recorder};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use placement::PodInfo;
use serde_json::{Value, json};

#[derive(Clone)]
pub struct Writer {
    pub client: kube::Client,
    pub recorder: Recorder,
}

/// How a binding ended.
pub struct Bound {
    pub key: ObjectKey,
    pub uid: String,
    pub node: String,
    pub result: Result<(), kube::Error>,
}

impl Writer {
    pub async fn bind(self, pod: Arc<Cached<PodInfo>>, node: String) -> Bound {
        let (key, uid) = (pod.key.clone(), pod.uid.clone());
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let result = api
            .create_subresource::<Value, Value>("binding", &key.name, &PostParams::default(), &binding)
            .await
            .map(drop);
        match &result {
            Ok(()) => {
                let message = format!("Successfully assigned {}/{} to {node}", key.namespace, key.name);
                self.recorder.record(&reference(&pod), EventKind::Normal, "Scheduled", message);
            }
            Err(error) => tracing::warn!(pod = %key.name, namespace = %key.namespace, %node, %error, "binding failed"),
        }
        Bound { key, uid, node, result }
    }

    /// Tells that no node takes the pod; writes the condition only when its text is new.
    pub async fn refuse(self, pod: Arc<Cached<PodInfo>>, message: String) {
        self.recorder.record(&reference(&pod), EventKind::Warning, "FailedScheduling", message.clone());
        if pod.unschedulable_message.as_deref() == Some(&message) {
            return;
        }
        let seconds = jiff::Timestamp::now().as_second();
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastProbeTime": null, "lastTransitionTime": meta::time::format_seconds(seconds),
        });
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}}));
        let api: Api<Pod> = Api::namespaced(self.client, &pod.key.namespace);
        if let Err(error) = api.patch_status(&pod.key.name, &PatchParams::default(), &patch).await {
            tracing::debug!(pod = %pod.key.name, %error, "the PodScheduled condition was not written");
        }
    }
}

fn reference(pod: &Cached<PodInfo>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.key.namespace.clone()),
        name: Some(pod.key.name.clone()),
        uid: Some(pod.uid.clone()),
        resource_version: Some(pod.resource_version.clone()),
        ..ObjectReference::default()
    }
}

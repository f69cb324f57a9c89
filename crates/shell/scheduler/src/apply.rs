//! What the scheduler writes: bindings, events, the PodScheduled condition, nominations and preemptions.

use std::sync::Arc;

use client::{ApiErrorExt, Cached, EventKind, ObjectKey, Recorder};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use placement::pod::PREEMPTED_REASON;
use placement::{PodInfo, Preemption};
use serde_json::{Value, json};

/// Victims told to go at once.
const EVICTIONS_MAX: usize = 16;

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

/// Why a pod waits, and who has to go for it.
pub struct Refusal {
    pub message: String,
    pub preemption: Option<Preemption>,
    /// A former nomination is void.
    pub hopeless: bool,
}

/// How a refusal was written.
pub struct Refused {
    pub key: ObjectKey,
    pub uid: String,
    /// The victims were not all told to go.
    pub failed: bool,
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

    /// Tells that no node takes the pod, and makes room for it where `refusal` says so.
    pub async fn refuse(self, pod: Arc<Cached<PodInfo>>, refusal: Refusal) -> Refused {
        let (key, uid) = (pod.key.clone(), pod.uid.clone());
        self.recorder.record(&reference(&pod), EventKind::Warning, "FailedScheduling", refusal.message.clone());
        self.tell(&pod, &refusal).await;
        let result = match &refusal.preemption {
            Some(preemption) => self.preempt(&pod, preemption).await,
            None => Ok(()),
        };
        if let Err(error) = &result {
            tracing::warn!(pod = %key.name, namespace = %key.namespace, %error, "preemption failed, will be tried again");
        }
        Refused { key, uid, failed: result.is_err() }
    }

    /// Writes the condition and the nomination where they are new.
    async fn tell(&self, pod: &Cached<PodInfo>, refusal: &Refusal) {
        let node = refusal.preemption.as_ref().map(|preemption| preemption.node.as_str());
        let nomination = match node {
            Some(node) if pod.nominated.as_deref() != Some(node) => Some(json!(node)),
            None if refusal.hopeless && pod.nominated.is_some() => Some(Value::Null),
            _ => None,
        };
        let told = pod.unschedulable_message.as_deref() == Some(&refusal.message);
        if told && nomination.is_none() {
            return;
        }
        let mut status = json!({});
        if !told {
            let seconds = jiff::Timestamp::now().as_second();
            status["conditions"] = json!([{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": refusal.message,
                "lastProbeTime": null, "lastTransitionTime": meta::time::format_seconds(seconds),
                "observedGeneration": pod.generation,
            }]);
        }
        if let Some(nomination) = nomination {
            status["nominatedNodeName"] = nomination;
        }
        if let Err(error) = self.patch_status(&pod.key, &pod.uid, status).await {
            tracing::debug!(pod = %pod.key.name, %error, "the PodScheduled condition was not written");
        }
    }

    async fn patch_status(&self, key: &ObjectKey, uid: &str, status: Value) -> kube::Result<()> {
        let patch = Patch::Strategic(json!({"metadata": {"uid": uid}, "status": status}));
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        api.patch_status(&key.name, &PatchParams::default(), &patch).await.map(drop)
    }

    /// Tells pods of lower priority to go.
    async fn preempt(&self, pod: &Cached<PodInfo>, preemption: &Preemption) -> kube::Result<()> {
        for other in &preemption.displaced {
            let key = ObjectKey::new(&other.namespace, &other.name);
            gone(self.patch_status(&key, &other.uid, json!({"nominatedNodeName": null})).await)?;
        }
        let going: Vec<_> = preemption.victims.iter().filter(|victim| !victim.deleting).cloned().collect();
        let mut evictions = Vec::with_capacity(going.len());
        for victim in going {
            evictions.push(self.evict(pod, victim, &preemption.node));
        }
        futures::stream::iter(evictions).buffer_unordered(EVICTIONS_MAX).try_collect::<Vec<()>>().await.map(drop)
    }

    async fn evict(&self, pod: &Cached<PodInfo>, victim: Arc<PodInfo>, node: &str) -> kube::Result<()> {
        let key = ObjectKey::new(&victim.namespace, &victim.name);
        let message = format!("{}: preempting to accommodate a higher priority pod", pod.scheduler);
        let seconds = jiff::Timestamp::now().as_second();
        let condition = json!([{
            "type": "DisruptionTarget", "status": "True", "reason": PREEMPTED_REASON, "message": message,
            "lastProbeTime": null, "lastTransitionTime": meta::time::format_seconds(seconds),
            "observedGeneration": victim.generation,
        }]);
        match self.patch_status(&key, &victim.uid, json!({"conditions": condition})).await {
            Err(error) if error.is_not_found() || error.is_conflict() => return Ok(()),
            result => result?,
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(victim.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        gone(api.delete(&key.name, &params).await.map(drop))?;
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(key.namespace),
            name: Some(key.name),
            uid: Some(victim.uid.clone()),
            ..ObjectReference::default()
        };
        let message = format!("Preempted by pod {} on node {node}", pod.uid);
        self.recorder.record(&about, EventKind::Normal, "Preempted", message);
        Ok(())
    }
}

/// What is gone already, or replaced, needs no write.
fn gone(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
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

//! What the scheduler writes: bindings, events, the PodScheduled condition, nominations and preemptions.

use std::sync::Arc;
use std::time::Duration;

use client::{ApiErrorExt, Cached, EventKind, ObjectKey, Recorder};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use placement::pod::PREEMPTED_REASON;
use placement::volumes::VolumePlan;
use placement::{PodInfo, Preemption};
use serde_json::{Value, json};

use crate::volumes::{VolumeBinder, VolumeError};

/// Between attempts to learn what became of a binding.
const REREAD_MIN: Duration = Duration::from_millis(100);
const REREAD_MAX: Duration = Duration::from_secs(10);
/// Victims told to go at once.
const EVICTIONS_MAX: usize = 16;

#[derive(Clone)]
pub struct Writer {
    pub client: kube::Client,
    pub recorder: Recorder,
}

/// How a binding ended: an error means that the pod is not on this node.
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
    /// Binds the pod's volumes, then the pod.
    pub async fn bind_with_volumes(
        self,
        volumes: VolumeBinder,
        pod: Arc<Cached<PodInfo>>,
        node: String,
        plan: VolumePlan,
    ) -> Bound {
        let Err(error) = volumes.bind(&pod, &node, &plan).await else { return self.bind(pod, node).await };
        let message = format!("running PreBind plugin \"VolumeBinding\": binding volumes: {error}");
        tracing::debug!(pod = %pod.key.name, namespace = %pod.key.namespace, %message);
        self.recorder.record(&reference(&pod), EventKind::Warning, "FailedScheduling", message);
        let error = match error {
            VolumeError::Api(error) => error,
            other => kube::Error::Service(Box::new(other)),
        };
        Bound { key: pod.key.clone(), uid: pod.uid.clone(), node, result: Err(error) }
    }

    /// Assigns the pod. An answer that says neither yes nor no (a lost connection, a timeout, an overloaded server) is no
    /// answer: the pod itself then tells, so that its room is not given away while it may be on the node.
    pub async fn bind(self, pod: Arc<Cached<PodInfo>>, node: String) -> Bound {
        let (key, uid) = (pod.key.clone(), pod.uid.clone());
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let sent = api
            .create_subresource::<Value, Value>("binding", &key.name, &PostParams::default(), &binding)
            .await
            .map(drop);
        let result = match sent {
            Err(error) if is_open(&error) => self.is_bound(&api, &pod, &node, error).await,
            known => known,
        };
        match &result {
            Ok(()) => {
                let message = format!("Successfully assigned {}/{} to {node}", key.namespace, key.name);
                self.recorder.record(&reference(&pod), EventKind::Normal, "Scheduled", message);
            }
            Err(error) => tracing::warn!(pod = %key.name, namespace = %key.namespace, %node, %error, "binding failed"),
        }
        Bound { key, uid, node, result }
    }

    /// Reads the pod until the API server answers; only then its room may be somebody else's.
    async fn is_bound(&self, api: &Api<Pod>, pod: &Cached<PodInfo>, node: &str, why: kube::Error) -> kube::Result<()> {
        let mut wait = REREAD_MIN;
        loop {
            match api.get_opt(&pod.key.name).await {
                Ok(Some(live)) if live.metadata.uid.as_ref() == Some(&pod.uid) => {
                    let bound = live.spec.and_then(|spec| spec.node_name);
                    return if bound.as_deref() == Some(node) { Ok(()) } else { Err(why) };
                }
                Ok(_) => return Err(why),
                Err(error) => {
                    tracing::debug!(pod = %pod.key.name, %error, "cannot learn yet whether the pod was bound");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(REREAD_MAX);
                }
            }
        }
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

/// Whether the request may have been carried out all the same.
fn is_open(error: &kube::Error) -> bool {
    error.status().is_none_or(|status| status.code >= 500)
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use http::{Request, Response};
    use kube::client::Body;

    use super::*;

    /// How the API server answers; `Lost` is no answer.
    #[derive(Clone, Copy)]
    enum Answer {
        Lost,
        Code(u16),
        Pod(&'static str, &'static str),
    }

    fn response(answer: Answer) -> std::io::Result<Response<Body>> {
        let (code, body) = match answer {
            Answer::Lost => return Err(std::io::Error::other("the connection is lost")),
            Answer::Pod(uid, node) => {
                let meta = json!({ "name": "a", "namespace": "x", "uid": uid });
                let spec = json!({ "nodeName": node, "containers": [] });
                (200, json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec }))
            }
            Answer::Code(code) => {
                let reason = if code == 404 { "NotFound" } else { "Conflict" };
                (
                    code,
                    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason }),
                )
            }
        };
        let body = Body::from(body.to_string().into_bytes());
        Response::builder().status(code).body(body).map_err(std::io::Error::other)
    }

    /// Binds a pod of uid `u` to `n1`; answers left over were not asked for.
    async fn bind(answers: &[Answer]) -> (bool, usize) {
        let left: Arc<Mutex<VecDeque<Answer>>> = Arc::new(Mutex::new(answers.iter().copied().collect()));
        let answers = left.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let event = request.uri().path().contains("/events");
            let answer = if event { None } else { answers.lock().unwrap().pop_front() };
            async move { response(answer.unwrap_or(Answer::Lost)) }
        });
        let client = kube::Client::new(service, "x");
        let writer = Writer { recorder: Recorder::new(client.clone(), "s", None), client };
        let (key, uid) = (ObjectKey::new("x", "a"), "u".to_owned());
        let (resource_version, view) = ("1".to_owned(), PodInfo::default());
        let pod = Cached { key, uid, resource_version, deleting: false, controller: None, view };
        let bound = writer.bind(Arc::new(pod), "n1".to_owned()).await;
        let left = left.lock().unwrap().len();
        (bound.result.is_ok(), left)
    }

    #[tokio::test]
    async fn a_lost_answer_is_looked_up_before_the_room_is_given_back() {
        use Answer::{Code, Lost, Pod};
        let table: [(&[Answer], bool); 8] = [
            (&[Lost, Pod("u", "n1")], true),
            (&[Lost, Lost, Code(503), Pod("u", "n1")], true),
            (&[Code(504), Pod("u", "n1")], true),
            (&[Lost, Pod("u", "")], false),
            (&[Lost, Pod("u", "n2")], false),
            (&[Lost, Pod("another", "n1")], false),
            (&[Lost, Code(404)], false),
            (&[Code(409)], false),
        ];
        for (number, (answers, is_bound)) in table.into_iter().enumerate() {
            assert_eq!(bind(answers).await, (is_bound, 0), "row {number}");
        }
    }
}

//! Mirror pods: the API's view of the node's static pods. Made when missing, removed with their pod, never obeyed.

use crate::node::Node;
use crate::static_pods::{HASH, MIRROR, is_mirror};
use client::Informer;
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Delay after something did not work.
const RETRY: Duration = Duration::from_secs(5);
/// Sleep when nothing is to do.
const IDLE: Duration = Duration::from_secs(600);

/// Keeps the mirrors until `stop`.
pub async fn run(node: Arc<Node>, informer: Informer<Pod>, stop: CancellationToken) {
    if node.config.manifests_dir.is_none() {
        return;
    }
    let (mut changes, mut statics) = (informer.changes(), node.static_pods.subscribe());
    loop {
        let done = keep(&node, &informer).await;
        let pause = if done { IDLE } else { RETRY };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            changed = statics.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a String> {
    pod.metadata.annotations.as_ref()?.get(name)
}

/// Brings the API to what the directory says; false if something has to be tried again.
async fn keep(node: &Node, informer: &Informer<Pod>) -> bool {
    let statics = node.static_pods.borrow().clone();
    let mut missing: HashMap<(Option<&String>, Option<&String>), &Arc<Pod>> =
        statics.iter().map(|pod| ((pod.metadata.namespace.as_ref(), pod.metadata.name.as_ref()), pod)).collect();
    let cached = informer.list();
    let mut done = true;
    for mirror in cached.iter().map(|cached| &cached.view).filter(|pod| is_mirror(pod)) {
        let key = (mirror.metadata.namespace.as_ref(), mirror.metadata.name.as_ref());
        let shown = missing.get(&key).is_some_and(|pod| annotation(pod, HASH) == annotation(mirror, MIRROR));
        if shown && mirror.metadata.deletion_timestamp.is_none() {
            missing.remove(&key);
        } else if let Err(error) = delete(node, mirror).await {
            tracing::warn!(pod = ?mirror.metadata.name, "cannot remove a mirror pod, trying again: {error}");
            done = false;
        }
    }
    for pod in missing.values() {
        if let Err(error) = create(node, pod).await {
            tracing::debug!(pod = ?pod.metadata.name, "cannot make a mirror pod, trying again: {error}");
            done = false;
        }
    }
    done
}

fn pods(node: &Node, pod: &Pod) -> Api<Pod> {
    Api::namespaced(node.client.clone(), pod.metadata.namespace.as_deref().unwrap_or("default"))
}

async fn delete(node: &Node, mirror: &Pod) -> Result<(), kube::Error> {
    let preconditions = Some(Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None });
    let parameters = DeleteParams { preconditions, ..DeleteParams::default().grace_period(0) };
    match pods(node, mirror).delete(mirror.metadata.name.as_deref().unwrap_or_default(), &parameters).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other.map(drop),
    }
}

async fn create(node: &Node, pod: &Pod) -> Result<(), kube::Error> {
    let name = &node.config.node_name;
    let nodes: Api<NodeObject> = Api::all(node.client.clone());
    let uid = nodes.get(name).await?.metadata.uid.unwrap_or_default();
    let mut mirror = pod.clone();
    mirror.status = None;
    mirror.metadata.uid = None;
    let hash = annotation(pod, HASH).cloned().unwrap_or_default();
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.into(), hash);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid,
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    match pods(node, pod).create(&PostParams::default(), &mirror).await {
        // an older mirror goes first; its end brings us back here
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

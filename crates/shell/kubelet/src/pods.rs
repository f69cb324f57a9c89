//! Follows the pods bound to this node and keeps one worker for each; takes over what runs already, ends what should not.

use crate::cgroups;
use crate::node::{Node, PodHandle};
use crate::runtime::{events, label};
use crate::static_pods::{MIRROR, is_mirror};
use crate::volumes;
use crate::worker::Worker;
use crate::{mirrors, static_pods};
use client::{Informer, InformerConfig};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use prost::Message as _;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Delay before the runtime's event stream is opened again.
const EVENTS_RETRY: Duration = Duration::from_millis(500);
/// How often the runtime is asked when it has no event stream.
const EVENTS_MISSING_RELIST: Duration = Duration::from_secs(2);

/// Runs the pods of this node until `stop`.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    let config = InformerConfig::all("/api/v1/pods").fields(format!("spec.nodeName={}", node.config.node_name));
    let informer: Informer<Pod> = Informer::start(node.client.clone(), config, |pod: Pod| pod, &[], stop.clone());
    let mut changes = informer.changes();
    if let Some(dir) = &node.config.manifests_dir {
        static_pods::publish(&node, dir);
    }
    let mut statics = node.static_pods.subscribe();
    tokio::spawn(mirrors::run(node.clone(), informer.clone(), stop.clone()));
    let (ended, mut ends) = mpsc::unbounded_channel::<String>();
    tokio::spawn(follow_runtime(node.clone(), stop.clone()));
    tokio::select! {
        () = stop.cancelled() => return,
        () = async { tokio::join!(informer.synced(), node.services.synced()); } => {}
    }
    let mut manager =
        Manager { node: node.clone(), stop: stop.clone(), ended, running: HashSet::new(), seen: HashMap::new() };
    manager.apply(&informer);
    manager.take_over().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                changes.mark_unchanged();
                manager.apply(&informer);
            }
            changed = statics.changed() => {
                if changed.is_err() {
                    return;
                }
                manager.apply(&informer);
            }
            Some(uid) = ends.recv() => {
                manager.running.remove(&uid);
                manager.seen.remove(&uid);
                node.registry.remove(&uid);
                // a pod that ended here but still stands in the API is looked at again
                manager.apply(&informer);
            }
        }
    }
}

struct Manager {
    node: Arc<Node>,
    stop: CancellationToken,
    ended: mpsc::UnboundedSender<String>,
    running: HashSet<String>,
    /// Version last handed to each worker.
    seen: HashMap<String, String>,
}

impl Manager {
    /// Makes workers and mailboxes agree with the API.
    fn apply(&mut self, informer: &Informer<Pod>) {
        let mut present = self.apply_static();
        for cached in informer.list() {
            if is_mirror(&cached.view) {
                self.show_mirror(&cached.view);
                continue;
            }
            present.insert(cached.uid.clone());
            if self.seen.get(&cached.uid) == Some(&cached.resource_version) {
                continue;
            }
            self.seen.insert(cached.uid.clone(), cached.resource_version.clone());
            match self.node.registry.get(&cached.uid) {
                Some(handle) => {
                    handle.pod.send_replace(Arc::new(cached.view.clone()));
                    handle.vanished.store(false, Ordering::Release);
                    handle.wake.notify_one();
                }
                None => self.begin(cached.uid.clone(), cached.view.clone()),
            }
        }
        for uid in self.running.iter().filter(|uid| !present.contains(*uid)) {
            if let Some(handle) = self.node.registry.get(uid)
                && !handle.vanished.swap(true, Ordering::AcqRel)
            {
                handle.wake.notify_one();
            }
        }
    }

    /// Begins the pods of the manifests directory; returns their uids.
    fn apply_static(&mut self) -> HashSet<String> {
        let pods = self.node.static_pods.borrow().clone();
        for pod in &pods {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            if self.running.contains(&uid) {
                continue;
            }
            let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
            let older = self.node.registry.all().into_iter().any(|handle| {
                let other = handle.pod.borrow();
                (&other.metadata.namespace, &other.metadata.name) == (namespace, name)
            });
            // a changed manifest is another pod of the same name: it begins when the older one has ended
            if !older {
                self.begin(uid, (**pod).clone());
            }
        }
        pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect()
    }

    /// Hands a mirror to the worker of its static pod.
    fn show_mirror(&self, mirror: &Pod) {
        let hash = mirror.metadata.annotations.as_ref().and_then(|a| a.get(MIRROR));
        let Some(handle) = hash.and_then(|uid| self.node.registry.get(uid)) else { return };
        let known = handle.mirror.borrow().as_ref().map(|known| known.metadata.resource_version.clone());
        if known != Some(mirror.metadata.resource_version.clone()) {
            handle.mirror.send_replace(Some(Arc::new(mirror.clone())));
            handle.wake.notify_one();
        }
    }

    fn begin(&mut self, uid: String, pod: Pod) {
        let handle = Arc::new(PodHandle::new(Arc::new(pod)));
        let pods = &self.node.registry.pods;
        pods.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone(), handle.clone());
        self.running.insert(uid.clone());
        let worker = Worker::new(self.node.clone(), uid.clone(), handle);
        let (stop, ended) = (self.stop.clone(), self.ended.clone());
        let task = tokio::spawn(worker.run(stop.clone()));
        tokio::spawn(async move {
            if let Err(error) = task.await {
                tracing::error!(pod = %uid, "the pod's worker panicked: {error}");
            }
            if !stop.is_cancelled() {
                let _ = ended.send(uid);
            }
        });
    }

    /// Ends pods that the runtime has and the API has not; removes what such pods left behind.
    async fn take_over(&mut self) {
        match self.node.runtime.list_sandboxes(None).await {
            Ok(sandboxes) => {
                for sandbox in sandboxes {
                    let text = |name: &str| sandbox.labels.get(name).cloned();
                    let Some(uid) = text(label::POD_UID).filter(|uid| !self.running.contains(uid)) else { continue };
                    tracing::info!(pod = ?text(label::POD_NAME), %uid, "ending a pod that was deleted while the node was away");
                    let metadata = ObjectMeta {
                        name: text(label::POD_NAME),
                        namespace: text(label::POD_NAMESPACE),
                        uid: Some(uid.clone()),
                        ..Default::default()
                    };
                    let spec = PodSpec { termination_grace_period_seconds: Some(30), ..Default::default() };
                    self.begin(uid.clone(), Pod { metadata, spec: Some(spec), status: None });
                    if let Some(handle) = self.node.registry.get(&uid) {
                        handle.vanished.store(true, Ordering::Release);
                        handle.wake.notify_one();
                    }
                }
            }
            Err(status) => tracing::warn!("cannot list sandboxes: {status}"),
        }
        let (node, running) = (self.node.clone(), self.running.clone());
        let left = tokio::task::spawn_blocking(move || {
            let entries = std::fs::read_dir(node.config.root_dir.join("pods")).into_iter().flatten().flatten();
            for entry in entries {
                let uid = entry.file_name().to_string_lossy().into_owned();
                if !running.contains(&uid)
                    && let Err(error) = volumes::remove(&volumes::pod_dir(&node, &uid))
                {
                    tracing::warn!(%uid, "cannot remove an old pod's directory: {error}");
                }
            }
            for (uid, path) in cgroups::pods(&node.config.cgroup_parent) {
                if !running.contains(&uid) {
                    cgroups::remove(&path);
                }
            }
        });
        if let Err(error) = left.await {
            tracing::warn!("clean-up of old pods failed: {error}");
        }
    }
}

/// Turns the runtime's events into wake-ups.
async fn follow_runtime(node: Arc<Node>, stop: CancellationToken) {
    loop {
        let pause = match node.runtime.events().await {
            Ok(mut stream) => {
                // what happened before the stream stood is found by looking
                node.registry.runtime_news(None);
                loop {
                    let message = tokio::select! {
                        () = stop.cancelled() => return,
                        message = stream.message() => message,
                    };
                    match message {
                        Ok(Some(envelope)) => handle_event(&node, &envelope),
                        Ok(None) => break,
                        Err(status) => {
                            tracing::info!("the runtime's event stream ended: {status}");
                            break;
                        }
                    }
                }
                EVENTS_RETRY
            }
            Err(status) if status.code() == tonic::Code::Unimplemented => EVENTS_MISSING_RELIST,
            Err(_) => EVENTS_RETRY,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => node.registry.runtime_news(None),
        }
    }
}

fn handle_event(node: &Node, envelope: &events::Envelope) {
    if !matches!(envelope.topic.as_str(), "/tasks/exit" | "/tasks/oom") {
        return;
    }
    let body = envelope.event.as_ref().map(|e| e.value.as_slice()).unwrap_or_default();
    // the container id is field 1 of both messages
    let Ok(exit) = events::TaskExit::decode(body) else { return };
    // the end of an exec is no news of the container
    if exit.id.is_empty() || exit.id == exit.container_id {
        node.registry.runtime_news(Some(&exit.container_id));
    }
}

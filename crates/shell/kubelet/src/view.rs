//! What the kubelet's server sees of the node: containers by name, stream URLs of the runtime, and its documents.

use crate::node::Node;
use crate::runtime::cri;
use crate::server::{ContainerTarget, DiskWork, Document, LookupError, NodeView, Streams};
use crate::usage::{self, Snapshot};
use crate::volumes::disk::{DiskError, Grown};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// The node as its server sees it.
pub struct LocalView {
    node: Arc<Node>,
}

impl LocalView {
    pub fn new(node: Arc<Node>) -> LocalView {
        LocalView { node }
    }

    async fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let node = self.node.clone();
        tokio::task::spawn_blocking(move || node.meter.snapshot(&node)).await.ok()
    }

    /// Pods as the API has them.
    fn pods(&self) -> Value {
        let pods: Vec<_> = self.node.registry.all().iter().map(|h| h.pod.borrow().clone()).collect();
        let items: Vec<Value> = pods.iter().filter_map(|pod| serde_json::to_value(&**pod).ok()).collect();
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
    }
}

#[async_trait]
impl NodeView for LocalView {
    async fn container(&self, namespace: &str, pod: &str, container: &str) -> Result<ContainerTarget, LookupError> {
        let handle = self.node.registry.find(namespace, pod).ok_or(LookupError::NoPod)?;
        let object = handle.pod.borrow().clone();
        let spec = object.spec.as_ref().ok_or(LookupError::NoPod)?;
        if podsync::container(spec, container).is_none() {
            return Err(LookupError::NoContainer);
        }
        let view = handle.view.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match view.containers.get(container) {
            Some(found) => ContainerTarget {
                id: Some(found.id.clone()),
                log: Some(found.log_path.clone()),
                previous_log: found.previous_log_path.clone(),
                running: found.running,
                waiting_reason: None,
            },
            None => {
                let status = object.status.as_ref();
                let lists = [
                    status.and_then(|s| s.init_container_statuses.as_ref()),
                    status.and_then(|s| s.container_statuses.as_ref()),
                    status.and_then(|s| s.ephemeral_container_statuses.as_ref()),
                ];
                let known = lists.into_iter().flatten().flatten().find(|s| s.name == container);
                let waiting = known.and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone());
                ContainerTarget {
                    id: None,
                    log: None,
                    previous_log: None,
                    running: false,
                    waiting_reason: waiting.or_else(|| Some("ContainerCreating".into())),
                }
            }
        })
    }

    async fn sandbox(&self, namespace: &str, pod: &str) -> Result<String, LookupError> {
        let handle = self.node.registry.find(namespace, pod).ok_or(LookupError::NoPod)?;
        let view = handle.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.sandbox_id.clone().ok_or(LookupError::NoContainer)
    }

    async fn disk(&self, name: &str, work: DiskWork) -> anyhow::Result<Value> {
        let (disks, name) = (self.node.disks.clone(), name.to_owned());
        let done = tokio::task::spawn_blocking(move || match work {
            DiskWork::Create { bytes, block } => {
                disks.create(&name, bytes, block).map(|path| json!({"path": path, "bytes": bytes}))
            }
            DiskWork::Grow { bytes } => {
                disks.grow(&name, bytes).map(|grown| json!({"bytes": bytes, "pending": grown == Grown::Pending}))
            }
            DiskWork::Remove => disks.remove(&name).map(|()| json!({})),
        });
        match done.await? {
            Ok(answer) => Ok(answer),
            Err(DiskError::Refused(why)) => Ok(json!({"refused": why})),
            Err(DiskError::Failed(error)) => Err(error),
        }
    }

    async fn is_running(&self, container_id: &str) -> bool {
        let status = self.node.runtime.container(container_id).await.ok().flatten();
        status.is_some_and(|s| s.state == i32::from(cri::ContainerState::ContainerRunning))
    }

    async fn exec_url(&self, container_id: &str, command: &[String], streams: Streams) -> anyhow::Result<String> {
        let request = cri::ExecRequest {
            container_id: container_id.into(),
            cmd: command.to_vec(),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        Ok(self.node.runtime.raw().exec(request).await?.into_inner().url)
    }

    async fn attach_url(&self, container_id: &str, streams: Streams) -> anyhow::Result<String> {
        let request = cri::AttachRequest {
            container_id: container_id.into(),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        Ok(self.node.runtime.raw().attach(request).await?.into_inner().url)
    }

    async fn port_forward_url(&self, sandbox_id: &str, ports: &[u16]) -> anyhow::Result<String> {
        let port = ports.iter().map(|p| i32::from(*p)).collect();
        let request = cri::PortForwardRequest { pod_sandbox_id: sandbox_id.into(), port };
        Ok(self.node.runtime.raw().port_forward(request).await?.into_inner().url)
    }

    /// Without a service proxy every address counts as withdrawn.
    async fn withdrawn(&self, addresses: &[IpAddr], at_most: Duration) -> bool {
        match self.node.withdrawal.get() {
            Some(withdrawal) => withdrawal.here(addresses, at_most).await,
            None => true,
        }
    }

    async fn document(&self, path: &str, query: &[(String, String)]) -> Option<Document> {
        let node = &self.node;
        Some(match path.trim_end_matches('/') {
            "/pods" | "/runningpods" => Document::Json(self.pods()),
            "/configz" => Document::Json(node.config.document()),
            "/stats/summary" => {
                let small = query.iter().any(|(key, value)| key == "only_cpu_and_memory" && value == "true");
                Document::Json(usage::summary(node, &*self.snapshot().await?, small).await)
            }
            "/tug/usage" => Document::Json(usage::short(&*self.snapshot().await?)),
            "/metrics" => {
                let more = node.more_metrics.get().map_or(String::new(), |more| more());
                Document::Metrics(usage::kubelet(node) + &more)
            }
            "/metrics/resource" => Document::Metrics(usage::resource(&*self.snapshot().await?)),
            "/metrics/cadvisor" => {
                let (node, snapshot) = (node.clone(), self.snapshot().await?);
                let read = tokio::task::spawn_blocking(move || usage::cadvisor(&node, &snapshot));
                Document::Metrics(read.await.ok()?)
            }
            "/metrics/probes" => Document::Metrics(usage::probes(node)),
            _ => return None,
        })
    }
}

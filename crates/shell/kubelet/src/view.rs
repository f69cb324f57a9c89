//! What the kubelet's server sees of the node: containers by name, stream URLs of the runtime, and its documents.

use crate::node::Node;
use crate::runtime::cri;
use crate::server::{ContainerTarget, LookupError, NodeView, Streams};
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

    fn stats(&self) -> Value {
        let now = jiff::Timestamp::now().to_string();
        let mut pods = Vec::new();
        for handle in self.node.registry.all() {
            let pod = handle.pod.borrow().clone();
            let group = crate::sandbox::cgroup_parent(&self.node, &pod);
            let Some(usage) = crate::cgroups::usage(&group) else { continue };
            pods.push(json!({
                "podRef": {"name": pod.metadata.name, "namespace": pod.metadata.namespace, "uid": pod.metadata.uid},
                "startTime": pod.status.as_ref().and_then(|s| s.start_time.clone()),
                "cpu": {"time": now, "usageCoreNanoSeconds": usage.cpu_nanoseconds},
                "memory": {"time": now, "usageBytes": usage.memory_bytes, "workingSetBytes": usage.working_set_bytes},
            }));
        }
        json!({"node": {"nodeName": self.node.config.node_name}, "pods": pods})
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

    async fn document(&self, path: &str) -> Option<Value> {
        match path.trim_end_matches('/') {
            "/pods" | "/runningpods" => {
                let pods: Vec<_> = self.node.registry.all().iter().map(|h| h.pod.borrow().clone()).collect();
                let items: Vec<Value> = pods.iter().filter_map(|pod| serde_json::to_value(&**pod).ok()).collect();
                Some(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
            }
            "/stats/summary" => Some(self.stats()),
            _ => None,
        }
    }
}

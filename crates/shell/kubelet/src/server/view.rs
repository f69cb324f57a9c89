//! The node as its server sees it.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{ContainerTarget, LookupError, NodeView, Streams};
use crate::node::{Node, PodHandle};
use crate::runtime::cri;

#[async_trait]
impl NodeView for Node {
    async fn container(&self, namespace: &str, pod: &str, container: &str) -> Result<ContainerTarget, LookupError> {
        let handle = self.registry.find(namespace, pod).ok_or(LookupError::NoPod)?;
        let object = handle.pod.borrow().clone();
        if !names(&object).any(|name| name == container) {
            return Err(LookupError::NoContainer);
        }
        let view = handle.view.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match view.containers.get(container) {
            Some(known) => ContainerTarget {
                id: Some(known.id.clone()),
                log: Some(known.log_path.clone()),
                previous_log: known.previous_log_path.clone(),
                running: known.running,
                waiting_reason: None,
            },
            None => ContainerTarget {
                id: None,
                log: None,
                previous_log: None,
                running: false,
                waiting_reason: waiting_reason(&object, container),
            },
        })
    }

    async fn sandbox(&self, namespace: &str, pod: &str) -> Result<String, LookupError> {
        let handle = self.registry.find(namespace, pod).ok_or(LookupError::NoPod)?;
        let view = handle.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.sandbox_id.clone().ok_or(LookupError::NoContainer)
    }

    async fn is_running(&self, container_id: &str) -> bool {
        const RUNNING: i32 = cri::ContainerState::ContainerRunning as i32;
        // A runtime that does not answer for a moment is no end of the container.
        self.runtime.container(container_id).await.is_ok_and(|status| status.is_some_and(|s| s.state == RUNNING))
    }

    async fn exec_url(&self, container_id: &str, command: &[String], streams: Streams) -> anyhow::Result<String> {
        let request = cri::ExecRequest {
            container_id: container_id.to_owned(),
            cmd: command.to_vec(),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr && !streams.tty,
        };
        Ok(self.runtime.raw().exec(request).await?.into_inner().url)
    }

    async fn attach_url(&self, container_id: &str, streams: Streams) -> anyhow::Result<String> {
        let request = cri::AttachRequest {
            container_id: container_id.to_owned(),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr && !streams.tty,
        };
        Ok(self.runtime.raw().attach(request).await?.into_inner().url)
    }

    async fn port_forward_url(&self, sandbox_id: &str, ports: &[u16]) -> anyhow::Result<String> {
        let port = ports.iter().map(|port| i32::from(*port)).collect();
        let request = cri::PortForwardRequest { pod_sandbox_id: sandbox_id.to_owned(), port };
        Ok(self.runtime.raw().port_forward(request).await?.into_inner().url)
    }

    async fn withdrawn(&self, addresses: &[IpAddr], at_most: Duration) -> bool {
        match self.withdrawal.get() {
            Some(withdrawal) => withdrawal.here(addresses, at_most).await,
            None => true,
        }
    }

    async fn document(&self, path: &str) -> Option<Value> {
        match path.trim_end_matches('/') {
            "/pods" => {
                let handles: Vec<Arc<PodHandle>> = self.registry.all();
                let pods: Vec<Value> =
                    handles.iter().filter_map(|h| serde_json::to_value(&**h.pod.borrow()).ok()).collect();
                Some(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}))
            }
            _ => None,
        }
    }
}

fn names(pod: &Pod) -> impl Iterator<Item = &str> {
    let spec = pod.spec.as_ref();
    let own = spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let ephemeral = spec.into_iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    own.map(|container| container.name.as_str()).chain(ephemeral.map(|container| container.name.as_str()))
}

fn waiting_reason(pod: &Pod, container: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let found = lists.into_iter().flatten().flatten().find(|status| status.name == container)?;
    found.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

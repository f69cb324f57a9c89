//! The end of a pod: its things leave the node, then its object leaves the API.

use super::Worker;
use crate::{cgroups, sandbox, volumes};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};
use std::sync::atomic::Ordering;

impl Worker {
    /// Removes everything of the pod from the node, then from the API.
    pub(super) async fn clean_up(&mut self) -> anyhow::Result<()> {
        self.probes.clear();
        for sandbox in &self.observed.sandboxes {
            self.node.runtime.remove_sandbox(&sandbox.id).await?;
        }
        let dir = volumes::pod_dir(&self.node, &self.uid);
        let logs = sandbox::log_directory(&self.node, &self.pod);
        let group = sandbox::cgroup_parent(&self.node, &self.pod);
        let spec_known = self.pod.spec.is_some();
        let (disks, pods_dir) = (self.node.disks.clone(), self.node.config.root_dir.join("pods"));
        tokio::task::spawn_blocking(move || {
            volumes::remove(&dir)?;
            // A disk that stays mounted costs nothing but its device; the next pod that ends tries again.
            if let Err(error) = disks.release_unused(&pods_dir) {
                tracing::warn!(%error, "cannot unmount a disk that nobody uses");
            }
            let _ = std::fs::remove_dir_all(&logs);
            if spec_known {
                cgroups::remove(&group);
            }
            Ok::<_, std::io::Error>(())
        })
        .await??;
        cgroups::keep(&self.node);
        self.node.objects.release(&self.uid);
        self.node.tokens.release(&self.uid);
        self.node.images.release(&self.uid);
        self.node.counters.release(&self.uid);
        let deleting = self.pod.metadata.deletion_timestamp.is_some();
        if deleting && !self.handle.vanished.load(Ordering::Acquire) {
            let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
            let name = self.pod.metadata.name.as_deref().unwrap_or_default();
            let pods: Api<Pod> = Api::namespaced(self.node.client.clone(), namespace);
            let preconditions = Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None });
            let parameters = DeleteParams { preconditions, ..DeleteParams::default().grace_period(0) };
            match pods.delete(name, &parameters).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

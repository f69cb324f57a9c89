//! Whether the node takes the pod: asked once, before anything of it is made.

use super::Worker;
use crate::pressure::Eviction;
use client::EventKind;
use k8s_openapi::api::core::v1::Pod;
use podsync::{Grant, Waiting};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

impl Worker {
    /// Decides for a pod that is new to the node; one that has begun already stays.
    pub(super) fn admit(&mut self) {
        if self.handle.admitted.load(Ordering::Acquire) || self.memory.failed.is_some() {
            return;
        }
        let leaving = self.pod.metadata.deletion_timestamp.is_some() || self.memory.terminate;
        let _one_at_a_time = self.node.admission.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = !self.observed.sandboxes.is_empty() || has_begun(&self.pod);
        if !begun && !leaving {
            let others = self.others();
            let others: Vec<&Pod> = others.iter().map(|pod| &**pod).collect();
            let facts = self.node.machine.facts(&self.node.config);
            let standing = self.node.pressures.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let pressed = podsync::eviction::refuses(&self.pod, &standing);
            let answer = match pressed {
                Some(message) => Err(Waiting { reason: "Evicted".into(), message }),
                None => podsync::admit(&self.pod, &others, &facts),
            };
            if let Err(Waiting { reason, message }) = answer {
                self.node.event(&self.pod, None, EventKind::Warning, &reason, message.clone());
                let message = format!("Pod was rejected: {message}");
                self.memory.failed = Some(Waiting { reason, message });
                return;
            }
        }
        self.handle.admitted.store(true, Ordering::Release);
    }

    /// Takes note that the node has decided to end the pod.
    pub(super) fn heed_eviction(&mut self) {
        if self.memory.failed.is_some() {
            return;
        }
        let eviction = self.handle.eviction.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(Eviction { message, disruption, grace }) = eviction {
            self.memory.grace = Some(grace);
            self.memory.disruption = disruption.then(|| message.clone());
            self.memory.failed = Some(Waiting { reason: "Evicted".into(), message });
        }
    }

    /// Other pods that take room on the node already, with what they were granted.
    pub(super) fn others(&self) -> Vec<Arc<Pod>> {
        let handles = self.node.registry.all().into_iter().filter(|handle| !Arc::ptr_eq(handle, &self.handle));
        let taken = handles.filter(|handle| !handle.ended.load(Ordering::Acquire));
        let pods = taken.filter_map(|handle| {
            let pod = handle.pod.borrow().clone();
            let here = handle.admitted.load(Ordering::Acquire) || has_begun(&pod);
            here.then(|| {
                let grant = handle.grant.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let runs = grant.map_or_else(|| Grant::before(&pod).applied(&pod), |grant| grant.applied(&pod));
                runs.map_or(pod, Arc::new)
            })
        });
        pods.collect()
    }
}

/// Whether a kubelet has decided about the pod before.
pub(super) fn has_begun(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    status.start_time.is_some() || matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"))
}

//! Resizes: what the node grants, what has to wait, and what is told about it.

use super::Worker;
use super::admit::has_begun;
use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use podsync::{Grant, Observed, RESIZE_IN_PROGRESS, RESIZE_PENDING, Waiting, resize_message};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// A resize that waits is tried again this often even where nobody says that room has become free.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(60);
/// Delay before a failed resize is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

impl Worker {
    /// Grants what the pod asks for where there is room; otherwise it goes on with what it has.
    pub(super) fn grant(&mut self, now: Timestamp) {
        if !self.handle.admitted.load(Ordering::Acquire) {
            return;
        }
        let has = self.granted();
        // a pod that was never resized comes no further
        if has.satisfies(&self.wanted) {
            self.wait_for_room(None);
            return;
        }
        let ended = self.handle.ended.load(Ordering::Acquire);
        if self.wanted.metadata.deletion_timestamp.is_some() || self.memory.terminate || ended {
            self.wait_for_room(None);
        } else if self.take_room(now) {
            self.pod = self.wanted.clone();
            return;
        }
        self.pod = self.as_granted();
    }

    /// The pod as it may run: what the API has, with the resources that the node has granted.
    pub(super) fn as_granted(&self) -> Arc<Pod> {
        let held = self.handle.grant.lock().unwrap_or_else(PoisonError::into_inner).clone();
        held.and_then(|grant| grant.applied(&self.wanted)).map_or_else(|| self.wanted.clone(), Arc::new)
    }

    /// What the pod was granted: at first what it asks for, or what an earlier process granted.
    fn granted(&mut self) -> Arc<Grant> {
        let mut held = self.handle.grant.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grant) = &*held {
            return grant.clone();
        }
        let begun = has_begun(&self.wanted);
        let first = Arc::new(if begun { Grant::before(&self.wanted) } else { Grant::of(&self.wanted) });
        let runs = first.applied(&self.wanted);
        let spec = runs.as_ref().unwrap_or(&self.wanted).spec.as_ref();
        self.memory.pod_limits = spec.map(podsync::pod_limits);
        *held = Some(first.clone());
        first
    }

    /// Takes what the pod asks for if the node has it; false where the pod has to wait. Either is told once.
    fn take_room(&mut self, now: Timestamp) -> bool {
        if let Err(waiting) = self.ask_for_room() {
            let generation = self.wanted.metadata.generation;
            let shown = podsync::condition(&self.wanted, RESIZE_PENDING).and_then(|c| c.observed_generation);
            if self.pending_told.or(shown) != generation {
                let what = format!("Pod resize {}", waiting.reason);
                let text = resize_message(&what, &self.wanted, self.wanted.metadata.generation, &waiting.message);
                self.node.event(&self.wanted, None, EventKind::Warning, &format!("Resize{}", waiting.reason), text);
            }
            self.pending_told = generation;
            self.room_retry_at = now.checked_add(ASK_AGAIN).ok();
            self.wait_for_room(Some(waiting));
            return false;
        }
        self.wait_for_room(None);
        self.memory.resize_error = None;
        self.memory.resize_generation = self.wanted.metadata.generation;
        self.resize_retry_at = None;
        self.resize_told = true;
        let text = resize_message("Pod resize started", &self.wanted, self.memory.resize_generation, "");
        self.node.event(&self.wanted, None, EventKind::Normal, "ResizeStarted", text);
        self.room_is_free();
        true
    }

    /// Decides while no other pod of the node is being decided on, and takes the room in the same moment.
    fn ask_for_room(&self) -> Result<(), Waiting> {
        let _one_at_a_time = self.node.admission.lock().unwrap_or_else(PoisonError::into_inner);
        let others = self.others();
        let others: Vec<&Pod> = others.iter().map(|pod| &**pod).collect();
        let asks = |handle: &Arc<crate::node::PodHandle>| {
            !Arc::ptr_eq(handle, &self.handle) && handle.asks_for_room.load(Ordering::Acquire)
        };
        let asking = self.node.registry.all().into_iter().filter(asks);
        let asking: Vec<Arc<Pod>> = asking.map(|handle| handle.pod.borrow().clone()).collect();
        let asking: Vec<&Pod> = asking.iter().map(|pod| &**pod).collect();
        podsync::has_room(&self.wanted, &others, &asking, &self.node.machine.facts(&self.node.config))?;
        let granted = Arc::new(Grant::of(&self.wanted));
        *self.handle.grant.lock().unwrap_or_else(PoisonError::into_inner) = Some(granted);
        Ok(())
    }

    fn wait_for_room(&mut self, waiting: Option<Waiting>) {
        if waiting.is_some() != self.memory.resize_pending.is_some() {
            self.handle.asks_for_room.store(waiting.is_some(), Ordering::Release);
        }
        if waiting.is_none() {
            (self.pending_told, self.room_retry_at) = (None, None);
        }
        self.memory.resize_pending = waiting;
    }

    /// Pods that wait for room may look again.
    pub(super) fn room_is_free(&self) {
        for handle in self.node.registry.all() {
            if handle.asks_for_room.load(Ordering::Acquire) && !Arc::ptr_eq(&handle, &self.handle) {
                handle.wake.notify_one();
            }
        }
    }

    /// A resize that an earlier process began ends with this one.
    pub(super) fn adopt_resize(&mut self) {
        if let Some(begun) = podsync::condition(&self.wanted, RESIZE_IN_PROGRESS) {
            self.memory.resize_generation = begun.observed_generation;
            self.resize_told = true;
        }
    }

    /// One event when a resize is done.
    pub(super) fn tell_resize(&mut self, observed: &Observed) {
        if self.resize_told && !podsync::is_resizing(&self.pod, observed, &self.memory) {
            self.resize_told = false;
            let text = resize_message("Pod resize completed", &self.pod, self.memory.resize_generation, "");
            self.node.event(&self.pod, None, EventKind::Normal, "ResizeCompleted", text);
        }
    }

    /// Says why a resize is not done, and tries again later.
    pub(super) fn resize_failed(&mut self, cause: String) {
        // how much memory is in use changes with each try
        if self.memory.resize_error.is_none() {
            let text = resize_message("Pod resize error", &self.pod, self.memory.resize_generation, &cause);
            self.node.event(&self.pod, None, EventKind::Warning, "ResizeError", text);
        }
        self.memory.resize_error = Some(cause);
        self.resize_retry_at = Timestamp::now().checked_add(RETRY).ok();
    }
}

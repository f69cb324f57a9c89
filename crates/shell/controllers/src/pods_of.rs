//! Which pods may concern a set, and which sets a pod may concern: alike for all that own pods by a selector.

use std::sync::Arc;

use client::{Cached, Informer, ObjectKey, Queue};
use k8s_openapi::api::apps::v1::{DaemonSet, ReplicaSet, StatefulSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use reconcile::PodView;
use reconcile::ownership::selector_of;
use reconcile::plan::Resource;

use crate::sources::{BY_OWNER, ORPHANS};

/// Has pods by a selector.
pub(crate) trait Selects {
    fn selector(&self) -> Option<&LabelSelector>;
}

macro_rules! selects {
    ($($set:ty),*) => {$(
        impl Selects for $set {
            fn selector(&self) -> Option<&LabelSelector> {
                self.spec.as_ref().map(|spec| &spec.selector)
            }
        }
    )*};
}

selects!(ReplicaSet, StatefulSet, DaemonSet);

/// Wakes sets by the changes of pods: an owned pod its set, an orphan every set that could adopt it.
pub(crate) fn wake_sets<S: Selects + Send + Sync + 'static>(
    pods: &Informer<Arc<PodView>>,
    sets: &Informer<Arc<S>>,
    resource: Resource,
    queue: &Queue<ObjectKey>,
) {
    let (sets, queue) = (sets.clone(), queue.clone());
    pods.subscribe(move |change| {
        for pod in change.sides() {
            wake_set_of(&queue, resource, &sets, pod);
        }
    });
}

fn wake_set_of<S: Selects + Send + Sync + 'static>(
    queue: &Queue<ObjectKey>,
    resource: Resource,
    sets: &Informer<Arc<S>>,
    pod: &Cached<Arc<PodView>>,
) {
    match &pod.controller {
        Some(owner) if owner.kind == resource.kind => queue.add(ObjectKey::new(&pod.key.namespace, &owner.name)),
        Some(_) => {}
        None => {
            for set in sets.list_namespace(&pod.key.namespace) {
                let selector = set.selector().and_then(selector_of);
                if selector.is_some_and(|selector| selector.matches(&*pod.labels)) {
                    queue.add(set.key.clone());
                }
            }
        }
    }
}

/// Pods this set owns, and those of its namespace that nobody controls.
pub(crate) fn candidates<S: Send + Sync + 'static>(
    pods: &Informer<Arc<PodView>>,
    set: &Cached<Arc<S>>,
) -> Vec<Arc<PodView>> {
    let (owned, orphans) = (pods.by_index(BY_OWNER, &set.uid), pods.by_index(ORPHANS, &set.key.namespace));
    owned.iter().chain(&orphans).map(|pod| pod.view.clone()).collect()
}

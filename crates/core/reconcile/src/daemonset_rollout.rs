//! Rolling a DaemonSet's pods over to a new template: within maxUnavailable, or beside the old ones within maxSurge.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::RollingUpdateDaemonSet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::daemonset::Scene;
use crate::node_fit::Fit;
use crate::plan::to_value;
use crate::pod::PodView;

/// Pods to delete, and nodes that get one more.
type Moves = (Vec<Arc<PodView>>, Vec<String>);

fn rolling<'a>(scene: &'a Scene<'_>) -> Option<&'a RollingUpdateDaemonSet> {
    let strategy = scene.spec.update_strategy.as_ref()?;
    strategy.rolling_update.as_ref().filter(|_| strategy.type_.as_deref() == Some("RollingUpdate"))
}

pub(crate) fn is_rolling(scene: &Scene<'_>) -> bool {
    rolling(scene).is_some()
}

/// Both bounds round up.
fn scaled(bound: Option<&IntOrString>, total: usize) -> usize {
    let total = i64::try_from(total).unwrap_or(i64::MAX);
    let scaled = bound.and_then(|bound| meta::intstr::scaled(&to_value(bound), total, true));
    usize::try_from(scaled.unwrap_or(0)).unwrap_or(0)
}

fn surge(scene: &Scene<'_>, total: usize) -> usize {
    scaled(rolling(scene).and_then(|rolling| rolling.max_surge.as_ref()), total)
}

/// Two pods of this set may be on one node at a time.
pub(crate) fn surges(scene: &Scene<'_>) -> bool {
    surge(scene, 1) > 0
}

/// Of a node where pods may be doubled: all but the oldest new and the oldest old one, and the old one too when the new
/// one stands in for it.
pub(crate) fn surplus(scene: &Scene<'_>, running: &[Arc<PodView>]) -> Vec<Arc<PodView>> {
    if running.len() < 2 {
        return Vec::new();
    }
    let (mut new, mut old, mut surplus) = (None, None, Vec::new());
    for pod in running {
        let place =
            if pod.labels.get(crate::revisions::REVISION_LABEL) == Some(&scene.hash) { &mut new } else { &mut old };
        if place.is_none() { *place = Some(pod) } else { surplus.push(pod.clone()) }
    }
    if let (Some(new), Some(old)) = (new, old)
        && (!old.ready || scene.is_available(new))
    {
        surplus.push(old.clone());
    }
    surplus
}

/// The new and the old pod of a node; `None` when there are more, which the upkeep of the node sorts out first.
fn pair<'a>(
    scene: &Scene<'_>,
    pods: &'a [Arc<PodView>],
) -> Option<(Option<&'a Arc<PodView>>, Option<&'a Arc<PodView>>)> {
    let (mut new, mut old) = (None, None);
    for pod in pods.iter().filter(|pod| pod.deletion.is_none()) {
        let place = if scene.is_updated(pod) { &mut new } else { &mut old };
        if place.replace(pod).is_some() {
            return None;
        }
    }
    Some((new, old))
}

/// The next moves of the update.
pub(crate) fn roll(scene: &Scene<'_>) -> Moves {
    let desired = scene.desired();
    let surge = surge(scene, desired);
    if surge > 0 {
        return roll_beside(scene, surge, desired);
    }
    let unavailable = scaled(rolling(scene).and_then(|rolling| rolling.max_unavailable.as_ref()), desired);
    // Neither surge nor unavailability leaves no room at all: one at a time then.
    (roll_in_place(scene, unavailable.max(1)), Vec::new())
}

/// Every node that should have a pod, and every node that has one.
fn places<'a>(scene: &'a Scene<'_>) -> Vec<(&'a str, &'a [Arc<PodView>])> {
    let wanted = scene.nodes.keys().copied().filter(|node| scene.fit(node) == Fit::Run);
    let mut names: Vec<&str> = scene.on_node.keys().map(String::as_str).chain(wanted).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|node| (node, scene.on_node.get(node).map_or(&[][..], Vec::as_slice))).collect()
}

/// Deletes old pods; the upkeep of the node makes the new one when the old is gone.
fn roll_in_place(scene: &Scene<'_>, bound: usize) -> Vec<Arc<PodView>> {
    let (mut unavailable, mut broken, mut candidates) = (0, Vec::new(), Vec::new());
    for (_, pods) in places(scene) {
        match pair(scene, pods) {
            None | Some((None, None) | (Some(_), Some(_))) => unavailable += 1,
            Some((Some(new), None)) => unavailable += usize::from(!scene.is_available(new)),
            // Replacing what does not serve costs nothing.
            Some((None, Some(old))) if !scene.is_available(old) => {
                unavailable += 1;
                broken.push(old.clone());
            }
            Some((None, Some(old))) => candidates.push(old.clone()),
        }
    }
    broken.extend(candidates.into_iter().take(bound.saturating_sub(unavailable)));
    broken
}

/// Adds new pods beside old ones; an old one goes when the new one is available.
fn roll_beside(scene: &Scene<'_>, bound: usize, desired: usize) -> Moves {
    let (mut delete, mut create) = (Vec::new(), Vec::new());
    let (mut surging, mut available, mut candidates, mut misplaced) = (0, 0, Vec::new(), Vec::new());
    for (node, pods) in places(scene) {
        let Some((new, old)) = pair(scene, pods) else {
            surging += 1;
            continue;
        };
        available += usize::from(old.or(new).is_some_and(|pod| scene.is_available(pod)));
        match (new, old) {
            (_, None) => {}
            (Some(new), Some(old)) if scene.is_available(new) => delete.push(old.clone()),
            (Some(_), Some(_)) => surging += 1,
            (None, Some(old)) => match (scene.is_available(old), scene.fit(node) == Fit::Run) {
                (false, false) => delete.push(old.clone()),
                (false, true) => create.push(node.to_owned()),
                (true, false) => misplaced.push(old.clone()),
                (true, true) => candidates.push(node.to_owned()),
            },
        }
    }
    // Who asks for surge expects full service: a pod where none belongs any more goes when another stands in for it.
    delete.extend(misplaced.into_iter().take(available.saturating_sub(desired)));
    create.extend(candidates.into_iter().take(bound.saturating_sub(surging)));
    (delete, create)
}

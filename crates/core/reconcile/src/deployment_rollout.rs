//! How a Deployment moves replicas between its ReplicaSets: rolling, recreating, resizing in proportion.

use std::sync::Arc;

use crate::deployment::{MAX_REPLICAS, Rollout, Set};
use crate::ownership::Dependent;
use crate::plan::Plan;
use crate::pod::PodView;

/// The size a new ReplicaSet of `size` may grow to now.
pub(crate) fn new_set_size(rollout: &Rollout<'_>, owned: &[Set], size: i32) -> i32 {
    if rollout.recreate {
        return rollout.replicas;
    }
    // A ReplicaSet that has not seen its size yet may be making pods of a larger one: its report wakes this plan again.
    if owned.iter().any(|set| !set.seen) {
        return size;
    }
    // Pods that a shrunk ReplicaSet has not deleted yet still use the room.
    let total: i32 = owned.iter().map(|set| set.replicas.max(set.running)).sum();
    let room = (rollout.max_total() - total).max(0);
    size + room.min(rollout.replicas - size).max(0)
}

/// One step of a rolling update: grow the new ReplicaSet, else shrink the old ones. True when a size changed.
pub(crate) fn roll(rollout: &Rollout<'_>, owned: &mut [Set], current: usize, plan: &mut Plan) -> bool {
    let size = owned[current].replicas;
    if size != rollout.replicas {
        let wanted = if size > rollout.replicas { rollout.replicas } else { new_set_size(rollout, owned, size) };
        if rollout.scale(&mut owned[current], wanted, false, plan) {
            return true;
        }
    }
    shrink_old(rollout, owned, current, plan)
}

fn shrink_old(rollout: &Rollout<'_>, owned: &mut [Set], current: usize, plan: &mut Plan) -> bool {
    let total: i32 = owned.iter().map(|set| set.replicas).sum();
    if total == owned[current].replicas {
        return false;
    }
    let min_available = rollout.replicas - rollout.unavailable;
    let new_unavailable = owned[current].replicas - owned[current].available;
    let spare = total - min_available - new_unavailable;
    if spare <= 0 {
        return false;
    }
    // Replicas that do not serve go first: losing them costs no availability.
    let (mut sizes, mut left) = (owned.iter().map(|set| set.replicas).collect::<Vec<_>>(), spare);
    for (index, set) in owned.iter().enumerate().filter(|(index, _)| *index != current) {
        let cut = (sizes[index] - set.available).clamp(0, left.max(0));
        sizes[index] -= cut;
        left -= cut;
    }
    let available: i32 = owned.iter().map(|set| set.available).sum();
    let mut left = (available - min_available).max(0);
    for index in (0..owned.len()).filter(|index| *index != current) {
        let cut = sizes[index].min(left);
        sizes[index] -= cut;
        left -= cut;
    }
    let mut moved = false;
    for (set, size) in owned.iter_mut().zip(sizes) {
        moved |= rollout.scale(set, size, false, plan);
    }
    moved
}

/// Recreate: everything old goes, and only when its pods are gone comes the new. True while it is not the turn of
/// the new ReplicaSet, or its size changed.
pub(crate) fn recreate(
    rollout: &Rollout<'_>,
    owned: &mut [Set],
    current: usize,
    pods: &[Arc<PodView>],
    plan: &mut Plan,
) -> bool {
    stop_old(rollout, owned, Some(current), pods, plan)
        || rollout.scale(&mut owned[current], rollout.replicas, false, plan)
}

/// Scales the old ReplicaSets to zero; true while they or their pods still exist.
pub(crate) fn stop_old(
    rollout: &Rollout<'_>,
    owned: &mut [Set],
    current: Option<usize>,
    pods: &[Arc<PodView>],
    plan: &mut Plan,
) -> bool {
    let mut busy = false;
    for (_, set) in owned.iter_mut().enumerate().filter(|(index, _)| Some(*index) != current) {
        busy |= rollout.scale(set, 0, false, plan);
        let uid = set.object.identity().1;
        busy |= pods.iter().any(|pod| !pod.is_finished() && pod.controller().is_some_and(|owner| owner.uid == uid));
    }
    busy
}

/// Follows a changed `spec.replicas` outside of a rollout step: the only active ReplicaSet takes all, several share in
/// proportion to their sizes, so that scaling does not hasten a rollout.
pub(crate) fn resize(rollout: &Rollout<'_>, owned: &mut [Set], current: Option<usize>, plan: &mut Plan) {
    if owned.is_empty() {
        return;
    }
    let active: Vec<usize> = (0..owned.len()).filter(|index| owned[*index].replicas > 0).collect();
    if let Some(only) = match active.as_slice() {
        [] => Some(current.unwrap_or(owned.len() - 1)),
        [only] => Some(*only),
        _ => None,
    } {
        let room = (rollout.max_total() - leaving(owned)).max(owned[only].replicas);
        let size = rollout.replicas.min(room);
        rollout.scale(&mut owned[only], size, true, plan);
        return;
    }
    if let Some(current) = current.filter(|current| is_saturated(rollout, &owned[*current])) {
        for index in active.into_iter().filter(|index| *index != current) {
            rollout.scale(&mut owned[index], 0, false, plan);
        }
        return;
    }
    if !rollout.recreate {
        resize_in_proportion(rollout, owned, active, plan);
    }
}

/// Pods that are still to be deleted: until then, nothing can grow into their room.
fn leaving(owned: &[Set]) -> i32 {
    owned.iter().map(|set| (set.running - set.replicas).max(0)).sum()
}

fn is_saturated(rollout: &Rollout<'_>, set: &Set) -> bool {
    let annotated = set.annotation(crate::deployment::DESIRED_REPLICAS).and_then(|value| value.parse().ok());
    set.replicas == rollout.replicas && annotated == Some(rollout.replicas) && set.available == rollout.replicas
}

fn resize_in_proportion(rollout: &Rollout<'_>, owned: &mut [Set], mut active: Vec<usize>, plan: &mut Plan) {
    let total: i32 = active.iter().map(|index| owned[*index].replicas).sum();
    let allowed = if rollout.replicas > 0 { rollout.max_total() } else { 0 };
    let mut to_add = allowed - total;
    if to_add > 0 {
        to_add = (to_add - leaving(owned)).max(0);
    }
    // Largest first; equal sizes: the newer gains first, the older loses first. `owned` is sorted by age.
    active.sort_by_key(|index| {
        let age = *index as i64;
        (-owned[*index].replicas, if to_add > 0 { -age } else { age })
    });
    let mut added = 0;
    let mut sizes = Vec::with_capacity(active.len());
    for index in &active {
        let share = fraction(rollout, &owned[*index]);
        let left = to_add - added;
        let share = if to_add > 0 { share.clamp(0, left) } else { share.clamp(left.min(0), 0) };
        added += share;
        sizes.push(owned[*index].replicas + share);
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    for (index, size) in active.into_iter().zip(sizes) {
        rollout.scale(&mut owned[index], size, true, plan);
    }
}

/// How many replicas this ReplicaSet gains or loses when the whole grows from its annotated to its present maximum.
fn fraction(rollout: &Rollout<'_>, set: &Set) -> i32 {
    if rollout.replicas == 0 {
        return -set.replicas;
    }
    let annotated = set.annotation(MAX_REPLICAS).and_then(|value| value.parse::<i32>().ok()).filter(|max| *max != 0);
    let status = rollout.deployment.status.as_ref().and_then(|status| status.replicas).filter(|max| *max != 0);
    let Some(before) = annotated.or(status) else { return 0 };
    let size = f64::from(set.replicas) * f64::from(rollout.max_total()) / f64::from(before);
    size.round() as i32 - set.replicas
}

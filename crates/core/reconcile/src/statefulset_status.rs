//! What a StatefulSet reports of itself, and which of its revisions are kept.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};

use crate::plan::{Op, Plan, STATEFUL_SETS, difference};
use crate::pod::PodView;
use crate::revisions::{self, REVISION_LABEL, Revision};
use crate::statefulset::Scene;

/// Kept when `revisionHistoryLimit` is not set (an object that was never defaulted).
const REVISIONS_KEPT: i32 = 10;

/// The status patch due for what is observed now, and the revisions to forget.
pub fn status(set: &StatefulSet, revisions: &[Revision], pods: &[Arc<PodView>], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(scene) = Scene::new(set, revisions, pods, now) else { return plan };
    let old = set.status.clone().unwrap_or_default();
    if let Some(patch) = difference(&old, &observed(&scene, &old)) {
        plan.push(Op::update_status(STATEFUL_SETS, &scene.owner.namespace, &scene.owner.name, patch));
    }
    forget(&scene, &mut plan);
    // A ready pod becomes available by time alone.
    let waiting = scene.pods.iter().filter(|pod| pod.ready && !pod.is_available(scene.min_ready(), now));
    if let Some(next) = waiting.filter_map(|pod| pod.available_at(scene.min_ready())).min() {
        let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default();
        plan.requeue(wait + Duration::from_millis(10));
    }
    plan
}

fn observed(scene: &Scene<'_>, old: &StatefulSetStatus) -> StatefulSetStatus {
    let count = |predicate: &dyn Fn(&PodView) -> bool| {
        i32::try_from(scene.pods.iter().filter(|pod| predicate(pod)).count()).unwrap_or(i32::MAX)
    };
    let ready = |pod: &PodView| pod.phase == "Running" && pod.ready;
    let of = |pod: &PodView, revision: &Revision| {
        pod.deletion.is_none() && pod.labels.get(REVISION_LABEL).map(String::as_str) == Some(revisions::name(revision))
    };
    let non_zero = |number: i32| (number != 0).then_some(number);
    let mut new = StatefulSetStatus {
        replicas: count(&|_| true),
        ready_replicas: non_zero(count(&ready)),
        available_replicas: Some(count(&|pod| ready(pod) && pod.is_available(scene.min_ready(), scene.now))),
        current_replicas: non_zero(count(&|pod| of(pod, &scene.current))),
        updated_replicas: non_zero(count(&|pod| of(pod, &scene.update))),
        current_revision: Some(revisions::name(&scene.current).to_owned()),
        update_revision: Some(revisions::name(&scene.update).to_owned()),
        collision_count: Some(old.collision_count.unwrap_or(0)),
        observed_generation: scene.set.metadata.generation.or(old.observed_generation),
        conditions: old.conditions.clone(),
    };
    let wanted = scene.replicas();
    let all = [Some(new.replicas), new.ready_replicas.or(Some(0)), new.updated_replicas.or(Some(0))];
    if scene.is_rolling() && all.iter().all(|count| *count == Some(wanted)) {
        // The update is over: what was new is what there is.
        new.current_replicas = new.updated_replicas;
        new.current_revision.clone_from(&new.update_revision);
    }
    new
}

/// Revisions beyond the limit that no pod and no update needs, oldest first.
fn forget(scene: &Scene<'_>, plan: &mut Plan) {
    let limit = scene.spec.revision_history_limit.unwrap_or(REVISIONS_KEPT);
    let live = |name: &str| {
        name == revisions::name(&scene.current)
            || name == revisions::name(&scene.update)
            || scene.pods.iter().any(|pod| pod.labels.get(REVISION_LABEL).map(String::as_str) == Some(name))
    };
    revisions::truncate(&scene.revisions, limit, |revision| live(revisions::name(revision)), plan);
}

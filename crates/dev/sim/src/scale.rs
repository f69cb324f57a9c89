//! What one pod's death costs a ReplicaSet of any size: the work of planning and writing, on no clock but the CPU's.

use std::time::Duration;

use serde_json::json;

use crate::api::Api;
use crate::dice::Dice;
use crate::faults::Faults;
use crate::manager::Manager;
use crate::roles::Role;

/// Deaths that are measured; the cheapest counts, for others use the same processor caches.
const DEATHS: usize = 9;
const SET: &str = "large";

/// The processor time of the reconcile after the death of one pod out of `replicas`.
///
/// # Panics
/// The set does not come to have its pods, or does not replace the dead one.
pub fn death_of_one(replicas: usize) -> Duration {
    let mut api = Api::default();
    crate::namespace::create(&mut api);
    let set = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": SET }, "spec": {
        "replicas": replicas, "selector": { "matchLabels": { "app": SET } }, "template": {
            "metadata": { "labels": { "app": SET } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } } } });
    assert_eq!(api.create("ReplicaSet", set), Ok(()));
    let mut manager = Manager::start(&api);
    settle(&mut manager, &mut api);
    assert_eq!(api.list("Pod").count(), replicas);
    let mut cheapest = Duration::MAX;
    for death in 0..DEATHS {
        let victim =
            api.list("Pod").nth(death * replicas / DEATHS).map(|pod| pod.name().to_owned()).unwrap_or_default();
        assert_eq!(api.delete("Pod", &victim, (None, None), Some(0), ""), Ok(()));
        manager.see_all(&api);
        let start = worked();
        settle(&mut manager, &mut api);
        cheapest = cheapest.min(worked() - start);
        assert_eq!(api.list("Pod").count(), replicas);
    }
    cheapest
}

/// The processor time that this thread has used.
fn worked() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec to a place that lives.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "this thread has no clock");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Until the set has nothing to do.
fn settle(manager: &mut Manager, api: &mut Api) {
    let mut faults = Faults { dice: Dice::new(0), enabled: false };
    while manager.due(Role::ReplicaSet) > 0 {
        manager.begin(Role::ReplicaSet, 0, api);
        while manager.is_busy(Role::ReplicaSet) {
            manager.step(Role::ReplicaSet, api, &mut faults);
        }
        manager.see_all(api);
    }
}

//! What one pod's death costs a ReplicaSet of any size: the work of planning and writing, on no clock but the CPU's.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::api::Api;
use crate::dice::Dice;
use crate::faults::Faults;
use crate::manager::Manager;
use crate::roles::Role;

/// Deaths that are measured; the shortest counts, for others may use the machine.
const DEATHS: usize = 5;
const SET: &str = "large";

/// The time of the reconcile after the death of one pod out of `replicas`.
///
/// # Panics
/// The set does not come to have its pods, or does not replace the dead one.
pub fn death_of_one(replicas: usize) -> Duration {
    let mut api = Api::default();
    let set = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": SET }, "spec": {
        "replicas": replicas, "selector": { "matchLabels": { "app": SET } }, "template": {
            "metadata": { "labels": { "app": SET } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } } } });
    assert_eq!(api.create("ReplicaSet", set), Ok(()));
    let mut manager = Manager::start(&api);
    settle(&mut manager, &mut api);
    assert_eq!(api.list("Pod").count(), replicas);
    let mut shortest = Duration::MAX;
    for death in 0..DEATHS {
        let victim =
            api.list("Pod").nth(death * replicas / DEATHS).map(|pod| pod.name().to_owned()).unwrap_or_default();
        assert_eq!(api.delete("Pod", &victim, (None, None), Some(0), ""), Ok(()));
        manager.see_all(&api);
        let start = Instant::now();
        settle(&mut manager, &mut api);
        shortest = shortest.min(start.elapsed());
        assert_eq!(api.list("Pod").count(), replicas);
    }
    shortest
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

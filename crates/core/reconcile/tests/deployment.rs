//! Deployments in a simulated cluster: told stories, and random ones whose bounds must hold at every step.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "world/dice.rs"]
mod dice;
mod world;

use reconcile::plan::{Op, REPLICA_SETS};
use serde_json::json;
use world::{Dice, World, image_of, template};

fn image(image: &str) -> serde_json::Value {
    json!({ "template": template(image) })
}

fn settled(spec: serde_json::Value) -> World {
    let mut world = World::new(spec);
    world.settle("start");
    world
}

#[test]
fn a_rollout_ends_and_says_so() {
    let mut world = settled(json!({}));
    assert_eq!(world.summary(), ["i:1 x3 r1"]);
    world.edit(image("i:2"));
    world.settle("update");
    assert_eq!(world.summary(), ["i:1 x0 r1", "i:2 x3 r2"]);
    assert_eq!(world.condition("Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(world.condition("Available"), "True MinimumReplicasAvailable");
    let status = world.deployment.status.clone().unwrap();
    let counts = [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas];
    assert_eq!((counts, status.unavailable_replicas), ([Some(3); 4], None));
    assert_eq!(status.observed_generation, world.deployment.metadata.generation);
    let name = world.sets[1].metadata.name.clone().unwrap();
    assert!(world.events.contains(&format!("ScalingReplicaSet: Scaled up replica set {name} from 0 to 1")));
}

#[test]
fn a_rollback_takes_the_old_replica_set_and_a_new_revision() {
    let mut world = settled(json!({}));
    world.edit(image("i:2"));
    world.settle("update");
    world.edit(image("i:1"));
    world.settle("rollback");
    assert_eq!(world.summary(), ["i:1 x3 r3", "i:2 x0 r2"]);
    let annotations = world.deployment.metadata.annotations.clone().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
    let history = world.sets[0].metadata.annotations.clone().unwrap();
    assert_eq!(history["deployment.kubernetes.io/revision-history"], "1");
}

#[test]
fn history_is_cut_to_its_limit() {
    let mut world = settled(json!({ "revisionHistoryLimit": 2 }));
    for number in 2..=5 {
        world.edit(image(&format!("i:{number}")));
        world.settle("update");
    }
    assert_eq!(world.summary(), ["i:3 x0 r3", "i:4 x0 r4", "i:5 x3 r5"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = settled(json!({}));
    world.edit(json!({ "paused": true, "replicas": 5, "template": template("i:2") }));
    world.settle("paused");
    assert_eq!(world.summary(), ["i:1 x5 r1"]);
    assert_eq!(world.condition("Progressing"), "Unknown DeploymentPaused");
    world.edit(json!({ "paused": null }));
    world.reconcile_deployment();
    world.settle("resumed");
    assert_eq!(world.summary(), ["i:1 x0 r1", "i:2 x5 r2"]);
    assert_eq!(world.condition("Progressing"), "True NewReplicaSetAvailable");
}

#[test]
fn scaling_amid_a_rollout_keeps_the_proportions() {
    // The conformance suite's figures: 10 replicas, surge 3, unavailable 2, then 30.
    let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 3, "maxUnavailable": 2 } });
    let mut world = settled(json!({ "replicas": 10, "strategy": strategy }));
    world.broken = vec!["i:404".to_owned()];
    world.edit(image("i:404"));
    world.settle("stuck");
    assert_eq!(world.summary(), ["i:1 x8 r1", "i:404 x5 r2"]);
    world.edit(json!({ "replicas": 30 }));
    world.settle("scaled");
    assert_eq!(world.summary(), ["i:1 x20 r1", "i:404 x13 r2"]);
}

/// A ReplicaSet that was shrunk before it saw its size may still be making the pods of the larger one.
#[test]
fn nothing_grows_while_a_size_is_unseen() {
    let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
    let mut world = settled(json!({ "strategy": strategy }));
    world.edit(image("i:2"));
    world.reconcile_deployment();
    assert_eq!(world.summary(), ["i:1 x3 r1", "i:2 x1 r2"]);
    world.edit(image("i:3"));
    for _ in 0..6 {
        world.reconcile_deployment();
    }
    assert_eq!(world.summary(), ["i:1 x3 r1", "i:2 x0 r2", "i:3 x0 r3"]);
    world.reconcile_set(1);
    world.reconcile_set(2);
    world.reconcile_deployment();
    assert_eq!(world.summary(), ["i:1 x3 r1", "i:2 x0 r2", "i:3 x1 r3"]);
}

#[test]
fn a_rollover_abandons_the_rollout_before() {
    let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
    let mut world = settled(json!({ "strategy": strategy }));
    world.broken = vec!["i:2".to_owned()];
    world.edit(image("i:2"));
    world.settle("stuck");
    assert_eq!(world.summary(), ["i:1 x3 r1", "i:2 x1 r2"]);
    world.edit(image("i:3"));
    world.settle("rollover");
    assert_eq!(world.summary(), ["i:1 x0 r1", "i:2 x0 r2", "i:3 x3 r3"]);
}

#[test]
fn a_rollout_that_does_not_move_misses_its_deadline() {
    let mut world = settled(json!({ "progressDeadlineSeconds": 20 }));
    world.broken = vec!["i:2".to_owned()];
    world.edit(image("i:2"));
    world.settle("stuck");
    assert_eq!(world.condition("Progressing"), "True ReplicaSetUpdated");
    let again = world.plan_deployment().requeue_after.unwrap();
    assert!(again.as_secs() <= 21, "{again:?}");
    world.tick(21);
    world.settle("late");
    assert_eq!(world.condition("Progressing"), "False ProgressDeadlineExceeded");
    world.broken.clear();
    world.settle("repaired");
    assert_eq!(world.condition("Progressing"), "True NewReplicaSetAvailable");
}

#[test]
fn a_taken_name_counts_a_collision() {
    let mut world = settled(json!({}));
    world.edit(image("i:2"));
    let plan = world.plan_deployment();
    let Op::Create { resource: REPLICA_SETS, object, .. } = &plan.steps[0].op else { panic!("{plan:?}") };
    let mut stranger = world.sets[0].clone();
    stranger.metadata.name = object["metadata"]["name"].as_str().map(str::to_owned);
    stranger.metadata.owner_references = None;
    stranger.metadata.labels = None;
    stranger.spec.as_mut().unwrap().replicas = Some(0);
    world.sets.push(stranger);
    world.settle("collision");
    assert_eq!(world.deployment.status.as_ref().unwrap().collision_count, Some(1));
    assert_eq!(world.summary()[2], "i:2 x3 r2");
}

#[test]
fn recreate_never_runs_two_versions() {
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let mut world = settled(json!({ "replicas": 1 + dice.below(4), "strategy": { "type": "Recreate" } }));
        for step in 0..300 {
            if step % 60 == 0 {
                world.edit(image(&format!("i:{}", 1 + dice.below(3))));
            }
            stumble(&mut world, &mut dice);
            let mut images: Vec<_> = world.pods.iter().map(|pod| world.image(pod)).collect();
            images.sort();
            images.dedup();
            assert!(images.len() <= 1, "seed {seed} step {step}: {images:?}");
        }
        finish(&mut world, seed);
    }
}

/// One random thing happens.
fn stumble(world: &mut World, dice: &mut Dice) {
    let (sets, pods) = (world.sets.len().max(1), world.pods.len().max(1));
    match dice.below(8) {
        0 | 1 => _ = world.reconcile_deployment(),
        2 | 3 => _ = world.reconcile_set(dice.below(sets)),
        4 | 5 => world.start_pod(dice.below(pods)),
        6 => world.end_pod(dice.below(pods)),
        _ => world.tick(1),
    }
}

fn finish(world: &mut World, seed: u64) {
    world.broken.clear();
    world.edit(json!({ "paused": null }));
    world.settle(&format!("seed {seed}"));
    let replicas = world.deployment.spec.as_ref().unwrap().replicas.unwrap();
    let template = &world.deployment.spec.as_ref().unwrap().template;
    let wanted = template.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    for set in &world.sets {
        let expected = if image_of(set) == wanted { replicas } else { 0 };
        assert_eq!(set.spec.as_ref().unwrap().replicas, Some(expected), "seed {seed}: {:?}", world.summary());
    }
    assert_eq!(world.available(0), usize::try_from(replicas).unwrap(), "seed {seed}");
    assert_eq!(world.condition("Progressing"), "True NewReplicaSetAvailable", "seed {seed}");
}

#[test]
fn rolling_updates_keep_their_bounds() {
    for seed in 0..30 {
        let mut dice = Dice::new(seed);
        let (replicas, surge, unavailable) = (1 + dice.below(6), dice.below(3), dice.below(3));
        let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
        let min_ready = 3 * i32::from(dice.below(2) == 0);
        let rolling = json!({ "maxSurge": surge, "maxUnavailable": unavailable });
        let mut world = settled(json!({ "replicas": replicas, "minReadySeconds": min_ready,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": rolling } }));
        let (most, least) = (replicas + surge, replicas.saturating_sub(unavailable));
        for step in 0..400 {
            match dice.below(40) {
                0 => world.edit(image(&format!("i:{}", 1 + dice.below(4)))),
                1 => world.edit(json!({ "paused": dice.below(2) == 0 })),
                2 => world.broken = vec![format!("i:{}", 1 + dice.below(4))],
                _ => stumble(&mut world, &mut dice),
            }
            let (active, available) = (world.active(), world.available(min_ready));
            assert!(active <= most, "seed {seed} step {step}: {active} pods, at most {most}");
            assert!(available >= least, "seed {seed} step {step}: {available} available, at least {least}");
        }
        finish(&mut world, seed);
    }
}

#[test]
fn scaling_and_failing_pods_still_settle() {
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let mut world = settled(json!({ "replicas": 3 }));
        for _ in 0..300 {
            let pods = world.pods.len().max(1);
            match dice.below(20) {
                0 => world.edit(image(&format!("i:{}", 1 + dice.below(4)))),
                1 => world.edit(json!({ "replicas": dice.below(8) })),
                2 => world.fail_pod(dice.below(pods)),
                3 => world.edit(json!({ "paused": dice.below(2) == 0 })),
                _ => stumble(&mut world, &mut dice),
            }
        }
        finish(&mut world, seed);
    }
}

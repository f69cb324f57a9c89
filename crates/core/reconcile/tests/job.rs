//! Jobs from creation to their end, and counts that stay exact whatever is cut off.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

mod jobs;

use jobs::{Dice, World, is_tracked};
use reconcile::plan::Op;
use serde_json::{Value, json};

#[test]
fn a_job_runs_its_pods_and_completes() {
    let mut world = World::new(json!({ "completions": 3, "parallelism": 2 }));
    world.settle();
    assert_eq!((world.summary(), world.status()), ("Pending Pending".into(), "active=2".into()));
    assert!(world.pods.iter().all(is_tracked));
    world.start(0);
    world.settle();
    assert_eq!(world.status(), "active=2 ready=1");
    world.end(0, 0);
    world.settle();
    assert_eq!(world.summary(), "Succeeded Pending Pending");
    assert_eq!(world.status(), "active=2 succeeded=1");
    assert!(!is_tracked(&world.pods[0]) && world.pods[0]["metadata"]["deletionTimestamp"].is_null());
    world.end(1, 0);
    world.end(2, 0);
    world.tick(5);
    world.settle();
    let done = "succeeded=3 SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached";
    assert_eq!((world.status(), world.events.last().unwrap().as_str()), (done.into(), "Completed: Job completed"));
    assert_eq!(world.condition("Complete")["message"], "Reached expected number of succeeded pods");
    assert_eq!(world.job["status"]["completionTime"], "1970-01-12T13:46:45Z");
    assert_eq!(world.job["status"]["uncountedTerminatedPods"], json!({}));
    assert!(!world.reconcile(9), "a finished Job is left alone");
}

#[test]
fn a_work_queue_is_done_when_one_succeeded_and_all_ended() {
    let mut world = World::new(json!({ "completions": null, "parallelism": 2 }));
    world.settle();
    world.end(0, 0);
    world.settle();
    assert_eq!((world.summary(), world.status()), ("Succeeded Pending".into(), "active=1 succeeded=1".into()));
    world.end(1, 0);
    world.settle();
    assert!(world.status().ends_with("Complete:CompletionsReached"), "{}", world.status());
}

#[test]
fn failures_are_retried_later_each_time_and_then_no_more() {
    let mut world = World::new(json!({ "backoffLimit": 2 }));
    for wait in [10, 20] {
        world.settle();
        world.end(world.pods.len() - 1, 1);
        let ended = world.now;
        world.settle();
        assert_eq!(world.wake.unwrap().duration_since(ended).as_secs(), wait);
        world.tick(wait - 1);
        world.settle();
        assert_eq!(world.status(), format!("failed={}", world.pods.len()));
        // A restarted controller knows as much.
        world.backoff = None;
        world.settle();
        assert!(world.wake.is_some());
        world.tick(1);
        world.settle();
        assert!(world.status().starts_with("active=1 failed="), "{}", world.status());
    }
    world.end(2, 1);
    world.settle();
    assert_eq!(world.status(), "failed=3 FailureTarget:BackoffLimitExceeded Failed:BackoffLimitExceeded");
    assert_eq!(world.events.last().unwrap(), "BackoffLimitExceeded: Job has reached the specified backoff limit");
}

#[test]
fn indexes_get_their_pods_names_and_environment() {
    let mut world = World::new(json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed" }));
    world.settle();
    assert_eq!(world.summary(), "Pending0 Pending1 Pending2");
    let pod = &world.pods[1];
    assert_eq!(pod["metadata"]["generateName"], "j-1-");
    assert_eq!(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"], "1");
    assert_eq!(pod["spec"]["hostname"], "j-1");
    let path = "metadata.labels['batch.kubernetes.io/job-completion-index']";
    let variable = json!([{ "name": "JOB_COMPLETION_INDEX", "valueFrom": { "fieldRef": { "fieldPath": path } } }]);
    assert_eq!(pod["spec"]["containers"][0]["env"], variable);
    world.end(2, 0);
    world.tick(1);
    world.end(0, 1);
    world.settle();
    assert_eq!(world.status(), "active=1 succeeded=1 failed=1 completedIndexes=2");
    world.tick(10);
    world.settle();
    assert_eq!(world.summary(), "Failed0 Pending1 Succeeded2 Pending0");
    // Grown, then shrunk: what is beyond no longer counts.
    world.edit(json!({ "completions": 4, "parallelism": 4 }));
    world.settle();
    assert_eq!(world.status(), "active=3 succeeded=1 failed=1 completedIndexes=2");
    world.edit(json!({ "completions": 2, "parallelism": 2 }));
    world.settle();
    assert_eq!(world.status(), "active=2 failed=1");
    world.end(1, 0);
    world.end(3, 0);
    world.settle();
    assert!(world.status().starts_with("succeeded=2 failed=1 completedIndexes=0,1 "), "{}", world.status());
}

#[test]
fn a_second_pod_of_an_index_goes_uncounted() {
    let mut world = World::new(json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed" }));
    world.settle();
    let mut double = world.pods[0].clone();
    double["metadata"]["name"] = "double".into();
    double["metadata"]["uid"] = "double".into();
    world.pods.push(double);
    world.start(0);
    world.settle();
    assert_eq!(world.summary(), "Running0 Pending1");
    assert_eq!(world.status(), "active=2 ready=1");
}

#[test]
fn an_index_that_fails_too_often_fails_alone() {
    let spec = json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
        "backoffLimit": i32::MAX });
    let mut world = World::new(spec);
    world.settle();
    world.end(0, 1);
    world.settle();
    // The failed pod waits for its replacement, which inherits its count.
    assert!(is_tracked(&world.pods[0]));
    assert_eq!(world.status(), "active=1 failedIndexes=");
    world.tick(10);
    world.settle();
    assert_eq!(world.summary(), "Failed0 Pending1 Pending0");
    assert_eq!(world.pods[2]["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"], "1");
    assert_eq!(world.status(), "active=2 failed=1 failedIndexes=");
    world.end(2, 1);
    world.settle();
    assert_eq!(world.status(), "active=1 failed=2 failedIndexes=0");
    world.end(1, 0);
    world.settle();
    let end = "FailureTarget:FailedIndexes Failed:FailedIndexes";
    assert_eq!(world.status(), format!("succeeded=1 failed=2 completedIndexes=1 failedIndexes=0 {end}"));
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let spec = json!({ "completions": 4, "parallelism": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 0,
        "maxFailedIndexes": 1, "backoffLimit": i32::MAX });
    let mut world = World::new(spec);
    world.settle();
    world.end(0, 1);
    world.settle();
    assert_eq!(world.status(), "active=3 failed=1 failedIndexes=0");
    world.end(3, 1);
    world.settle();
    let end = "FailureTarget:MaxFailedIndexesExceeded Failed:MaxFailedIndexesExceeded";
    assert_eq!(world.status(), format!("failed=4 failedIndexes=0,3 {end}"));
}

fn policy(action: &str) -> Value {
    json!({ "rules": [
        { "action": action, "onExitCodes": { "operator": "In", "values": [42] } },
        { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] }] })
}

#[test]
fn policies_fail_the_job_the_index_or_nothing() {
    let spec = json!({ "completions": 2, "parallelism": 2, "podFailurePolicy": policy("FailJob"), "podReplacementPolicy": "Failed" });
    let mut world = World::new(spec.clone());
    world.settle();
    world.end(0, 42);
    world.settle();
    assert_eq!(world.status(), "failed=2 FailureTarget:PodFailurePolicy Failed:PodFailurePolicy");
    let name = world.pods[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let why = format!("Container c for pod a/{name} failed with exit code 42 matching FailJob rule at index 0");
    assert_eq!(world.condition("Failed")["message"], why);

    let mut world = World::new(spec);
    world.settle();
    world.pods[0]["status"]["conditions"] = json!([]);
    world.end(0, 1);
    world.pods[0]["status"]["conditions"] = json!([{ "type": "DisruptionTarget", "status": "True" }]);
    world.settle();
    assert_eq!(world.status(), "active=1");
    assert!(!is_tracked(&world.pods[0]));

    let mut world = World::new(json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed",
        "backoffLimitPerIndex": 5, "backoffLimit": i32::MAX, "podFailurePolicy": policy("FailIndex"),
        "podReplacementPolicy": "Failed" }));
    world.settle();
    world.end(1, 42);
    world.settle();
    assert_eq!(world.status(), "active=1 failed=1 failedIndexes=1");
}

#[test]
fn a_met_success_policy_ends_the_rest() {
    let rules = json!({ "rules": [{ "succeededIndexes": "1-2", "succeededCount": 1 }] });
    let mut world =
        World::new(json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed", "successPolicy": rules }));
    world.settle();
    world.end(0, 0);
    world.settle();
    assert_eq!(world.status(), "active=2 succeeded=1 completedIndexes=0");
    world.end(2, 0);
    world.reconcile(usize::MAX);
    assert!(world.status().ends_with("SuccessCriteriaMet:SuccessPolicy"), "{}", world.status());
    world.reconcile(usize::MAX);
    assert_eq!(world.summary(), "Succeeded0 -Pending1 Succeeded2");
    // Complete only when the last pod is gone.
    assert!(world.status().ends_with("SuccessCriteriaMet:SuccessPolicy"), "{}", world.status());
    world.settle();
    let end = "SuccessCriteriaMet:SuccessPolicy Complete:SuccessPolicy";
    assert_eq!(world.status(), format!("succeeded=2 failed=1 completedIndexes=0,2 {end}"));
    assert_eq!(world.condition("Complete")["message"], "Matched rules at index 0");
}

#[test]
fn a_suspended_job_has_no_pods_and_starts_anew() {
    let mut world = World::new(json!({ "suspend": true, "activeDeadlineSeconds": 30 }));
    world.settle();
    assert_eq!((world.summary(), world.status()), (String::new(), "Suspended:JobSuspended".into()));
    assert!(world.job["status"]["startTime"].is_null());
    world.edit(json!({ "suspend": false }));
    world.settle();
    assert_eq!(world.status(), "active=1 !Suspended:JobResumed");
    let first = world.job["status"]["startTime"].clone();
    world.tick(20);
    world.edit(json!({ "suspend": true }));
    world.settle();
    assert_eq!((world.summary(), world.status()), (String::new(), "Suspended:JobSuspended".into()));
    world.tick(100);
    world.edit(json!({ "suspend": false }));
    world.settle();
    assert_ne!(world.job["status"]["startTime"], first);
    world.tick(30);
    world.settle();
    assert!(world.status().ends_with("Failed:DeadlineExceeded"), "{}", world.status());
    assert!(world.events.iter().any(|event| event == "Suspended: Job suspended"));
    assert!(world.events.iter().any(|event| event == "Resumed: Job resumed"));
}

/// What ended since it was seen must be counted: its finalizer goes only from the revision that was seen.
#[test]
fn pods_that_go_uncounted_are_let_go_as_they_were_seen() {
    for change in [json!({ "suspend": true }), json!({ "parallelism": 0 })] {
        let mut world = World::new(json!({}));
        world.settle();
        world.start(0);
        world.edit(change);
        let (plan, _) = world.plan(|state| state.manage());
        let [step] = plan.batch.as_slice() else { panic!("one write: {plan:?}") };
        let Op::Patch { body, .. } = &step.op else { panic!("a patch: {step:?}") };
        let seen = &world.pods[0]["metadata"]["resourceVersion"];
        assert!(seen.is_string());
        assert_eq!(body["metadata"]["resourceVersion"], *seen);
    }
}

#[test]
fn pods_that_leave_are_replaced_at_once_or_when_they_are_gone() {
    for (policy, summary) in [("TerminatingOrFailed", "-Running Pending"), ("Failed", "-Running")] {
        let mut world = World::new(json!({ "podReplacementPolicy": policy }));
        world.settle();
        world.start(0);
        let name = world.pods[0]["metadata"]["name"].as_str().unwrap().to_owned();
        world.delete(&name, None);
        world.reconcile(usize::MAX);
        world.tick(10);
        world.reconcile(usize::MAX);
        assert_eq!(world.summary(), summary, "{policy}");
        world.end_deleted();
        world.reconcile(usize::MAX);
        world.tick(10);
        world.settle();
        assert_eq!(world.status(), "active=1 failed=1", "{policy}");
    }
}

#[test]
fn a_job_that_goes_frees_its_pods() {
    let mut world = World::new(json!({ "parallelism": 2, "completions": 2 }));
    world.settle();
    world.job["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z".into();
    world.settle();
    assert!(!world.pods.iter().any(is_tracked));
    assert_eq!(world.summary(), "Pending Pending");
}

#[test]
fn others_are_adopted_with_the_finalizer_and_strays_released_without() {
    let mut world = World::new(json!({ "parallelism": 1 }));
    world.settle();
    world.pods[0]["metadata"]["ownerReferences"] = json!([]);
    world.pods[0]["metadata"]["finalizers"] = json!([]);
    world.settle();
    assert!(is_tracked(&world.pods[0]) && world.pods[0]["metadata"]["ownerReferences"][0]["uid"] == "j");
    assert_eq!(world.pods.len(), 1);
    world.pods[0]["metadata"]["labels"] = json!({});
    world.settle();
    assert!(!is_tracked(&world.pods[0]) && world.pods[0]["metadata"]["ownerReferences"] == json!([]));
    assert_eq!(world.pods.len(), 2);
}

/// One random thing that happens to the Job or its pods.
fn happen(world: &mut World, dice: &mut Dice) {
    let pod = dice.below(world.pods.len().max(1));
    match dice.below(12) {
        0..=2 => world.start(pod),
        3..=5 => world.end(pod, 0),
        6 => world.end(pod, 1),
        7 => {
            if let Some(name) = world.pods.get(pod).and_then(|pod| pod["metadata"]["name"].as_str()).map(str::to_owned)
            {
                world.delete(&name, None);
            }
        }
        8 => world.end_deleted(),
        9 => world.tick(25),
        10 => world.edit(json!({ "suspend": dice.below(3) == 0 })),
        _ => world.edit(json!({ "parallelism": 1 + dice.below(4) })),
    }
}

#[test]
fn counts_stay_exact_over_random_histories_and_cuts() {
    for seed in 0..100 {
        let mut dice = Dice::new(seed);
        let indexed = seed % 2 == 0;
        let mut spec = json!({ "completions": 1 + dice.below(6), "parallelism": 1 + dice.below(4), "backoffLimit": 8,
            "completionMode": if indexed { "Indexed" } else { "NonIndexed" },
            "podReplacementPolicy": if dice.below(2) == 0 { "Failed" } else { "TerminatingOrFailed" } });
        if indexed && dice.below(2) == 0 {
            spec["backoffLimitPerIndex"] = dice.below(3).into();
        }
        let mut world = World::new(spec);
        for _ in 0..120 {
            happen(&mut world, &mut dice);
            let writes = if dice.below(2) == 0 { dice.below(5) } else { usize::MAX };
            world.reconcile(writes);
        }
        world.edit(json!({ "suspend": false, "parallelism": 4 }));
        for _ in 0..60 {
            world.tick(700);
            world.settle();
            if world.is_finished() {
                break;
            }
            (0..world.pods.len()).for_each(|pod| world.end(pod, 0));
        }
        assert!(world.is_finished(), "seed {seed}: {}", world.status());
        assert!(!world.pods.iter().any(is_tracked), "seed {seed}: {}", world.summary());
        let recorded: Vec<_> = world.recorded.iter().flatten().collect();
        for uid in world.ended.iter().flatten() {
            // An Indexed Job records successes by index; a pod of an index that it no longer has counts for nothing.
            assert!(indexed || recorded.contains(&uid), "seed {seed}: {uid} was lost");
        }
    }
}

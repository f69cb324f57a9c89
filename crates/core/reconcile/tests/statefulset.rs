//! StatefulSets in a simulated cluster: told stories, and random ones whose order and bounds must hold at every step.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "world/dice.rs"]
mod dice;
mod sets;

use dice::Dice;
use reconcile::plan::{Op, PODS, Plan};
use reconcile::statefulset::{history, plan, status};
use serde_json::{Value, json};
use sets::{Cluster, template};

/// Histories that each run tells.
const SEEDS: u64 = 24;

fn cluster(spec: Value) -> Cluster {
    let mut whole = json!({ "replicas": 3, "serviceName": "web", "podManagementPolicy": "OrderedReady",
        "revisionHistoryLimit": 10, "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } } });
    reconcile::plan::merge(&mut whole, &spec);
    Cluster::new("StatefulSet", whole)
}

fn planned(cluster: &Cluster) -> Plan {
    plan(&cluster.set(), &cluster.revisions(), &cluster.pods(), &cluster.claims(), cluster.now)
}

/// One round of the controller.
fn reconcile(cluster: &mut Cluster) -> bool {
    let recorded = history(&cluster.set(), &cluster.revisions());
    let mut changed = cluster.apply(&recorded);
    let wanted = planned(cluster);
    changed |= cluster.apply(&wanted);
    let report = status(&cluster.set(), &cluster.revisions(), &cluster.pods(), cluster.now);
    changed | cluster.apply(&report)
}

/// Lets everything happen until nothing does; panics when it never ends.
fn settle(cluster: &mut Cluster) {
    for _ in 0..400 {
        let mut changed = reconcile(cluster);
        let before = cluster.pods.clone();
        cluster.start_pods();
        cluster.end_pods();
        changed |= cluster.pods != before;
        let report = status(&cluster.set(), &cluster.revisions(), &cluster.pods(), cluster.now);
        if !changed && report == Plan::default() {
            return;
        }
        cluster.tick(1);
    }
    panic!("never settles: {:#?}", planned(cluster));
}

fn settled(spec: Value) -> Cluster {
    let mut cluster = cluster(spec);
    settle(&mut cluster);
    cluster.said();
    cluster
}

fn names(cluster: &Cluster) -> String {
    cluster.summary().join(", ")
}

#[test]
fn pods_come_one_after_the_other_and_go_the_other_way() {
    let mut cluster = cluster(json!({}));
    assert!(reconcile(&mut cluster));
    assert_eq!(cluster.said(), ["SuccessfulCreate: Create Pod web-0 in StatefulSet web successful"]);
    assert!(!reconcile(&mut cluster), "web-0 is not ready");
    cluster.start_pods();
    reconcile(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1, web-1 i:1 unready");
    settle(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1, web-1 i:1, web-2 i:1");
    cluster.said();
    cluster.edit(json!({ "replicas": 1 }));
    reconcile(&mut cluster);
    assert_eq!(cluster.said(), ["SuccessfulDelete: Delete Pod web-2 in StatefulSet web successful"]);
    assert!(!reconcile(&mut cluster), "web-2 is still ending");
    cluster.end_pods();
    reconcile(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1, web-1 i:1 ending");
}

#[test]
fn parallel_pods_come_and_go_at_once() {
    let mut cluster = cluster(json!({ "podManagementPolicy": "Parallel" }));
    reconcile(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1 unready, web-1 i:1 unready, web-2 i:1 unready");
    cluster.edit(json!({ "replicas": 0 }));
    reconcile(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1 ending, web-1 i:1 ending, web-2 i:1 ending");
}

#[test]
fn an_unhealthy_pod_stops_ordered_scaling() {
    let mut cluster = settled(json!({}));
    cluster.pods[1].ready = false;
    cluster.edit(json!({ "replicas": 5 }));
    reconcile(&mut cluster);
    assert_eq!(cluster.said(), Vec::<String>::new());
    cluster.pods[2].ready = false;
    cluster.edit(json!({ "replicas": 1 }));
    reconcile(&mut cluster);
    assert_eq!(cluster.said(), Vec::<String>::new(), "web-1 is the first unhealthy one: web-2 stays");
    cluster.pods[2].deletion = Some(cluster.now);
    cluster.end_pods();
    reconcile(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1, web-1 i:1 ending", "the first unhealthy one may go");
}

#[test]
fn pods_carry_their_identity() {
    let cluster = settled(json!({ "replicas": 1, "ordinals": { "start": 5 } }));
    let pod = &cluster.pods[0];
    assert_eq!((pod.name.as_str(), pod.hostname.as_str(), pod.subdomain.as_str()), ("web-5", "web-5", "web"));
    assert_eq!(pod.labels["statefulset.kubernetes.io/pod-name"], "web-5");
    assert_eq!(pod.labels["apps.kubernetes.io/pod-index"], "5");
    assert_eq!(pod.labels["controller-revision-hash"], cluster.set["status"]["updateRevision"].as_str().unwrap());
}

#[test]
fn the_status_says_all() {
    let mut cluster = settled(json!({}));
    let revision = cluster.revisions[0].metadata.name.clone().unwrap();
    let expected = json!({ "replicas": 3, "readyReplicas": 3, "availableReplicas": 3, "currentReplicas": 3,
        "updatedReplicas": 3, "currentRevision": revision, "updateRevision": revision, "collisionCount": 0,
        "observedGeneration": 1 });
    assert_eq!(cluster.set["status"], expected);
    cluster.broken = vec!["i:2".into()];
    cluster.edit(json!({ "template": template("i:2") }));
    settle(&mut cluster);
    let status = &cluster.set["status"];
    let counts = ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas"].map(|key| status[key].as_i64());
    assert_eq!(counts, [Some(3), Some(2), Some(2), Some(1)]);
    assert_eq!(status["currentRevision"], json!(revision));
    assert_ne!(status["updateRevision"], json!(revision));
}

#[test]
fn an_update_goes_from_the_highest_ordinal_and_waits_for_each() {
    let mut cluster = settled(json!({}));
    cluster.edit(json!({ "template": template("i:2") }));
    let mut seen = Vec::new();
    for _ in 0..30 {
        reconcile(&mut cluster);
        seen.extend(cluster.said());
        cluster.end_pods();
        cluster.start_pods();
    }
    let pods: Vec<&str> = seen.iter().map(|line| line.split(' ').nth(3).unwrap()).collect();
    assert_eq!(pods, ["web-2", "web-2", "web-1", "web-1", "web-0", "web-0"]);
    let status = &cluster.set["status"];
    assert_eq!(status["currentRevision"], status["updateRevision"]);
    assert_eq!(names(&cluster), "web-0 i:2, web-1 i:2, web-2 i:2");
}

#[test]
fn below_the_partition_pods_stay_and_come_back_as_they_were() {
    let partition = |at: i32| json!({ "updateStrategy": { "rollingUpdate": { "partition": at } } });
    let mut cluster = settled(partition(2));
    cluster.edit(json!({ "template": template("i:2") }));
    settle(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1, web-1 i:1, web-2 i:2");
    let now = cluster.now;
    cluster.pods.iter_mut().for_each(|pod| pod.deletion = Some(now));
    settle(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1, web-1 i:1, web-2 i:2");
    cluster.edit(partition(0));
    settle(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:2, web-1 i:2, web-2 i:2");
}

#[test]
fn without_a_partition_field_pods_come_back_as_far_as_the_update_got() {
    let mut cluster = settled(json!({ "updateStrategy": { "rollingUpdate": null } }));
    cluster.broken = vec!["i:2".into()];
    cluster.edit(json!({ "template": template("i:2") }));
    settle(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1, web-1 i:1, web-2 i:2 unready");
    cluster.broken.clear();
    let now = cluster.now;
    cluster.pods.iter_mut().find(|pod| pod.name == "web-0").unwrap().deletion = Some(now);
    cluster.end_pods();
    reconcile(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1 unready, web-1 i:1, web-2 i:2 unready");
}

#[test]
fn an_old_template_is_its_old_revision_again() {
    let mut cluster = settled(json!({}));
    let first = cluster.revisions[0].metadata.name.clone().unwrap();
    cluster.edit(json!({ "template": template("i:2") }));
    settle(&mut cluster);
    assert_eq!(cluster.history(), ["1 i:1", "2 i:2"]);
    cluster.edit(json!({ "template": template("i:1") }));
    settle(&mut cluster);
    assert_eq!(cluster.history(), ["2 i:2", "3 i:1"]);
    assert_eq!(cluster.set["status"]["currentRevision"], json!(first));
}

#[test]
fn history_is_cut_to_its_limit() {
    let mut cluster = settled(json!({ "revisionHistoryLimit": 2 }));
    for number in 2..=5 {
        cluster.edit(json!({ "template": template(&format!("i:{number}")) }));
        settle(&mut cluster);
    }
    assert_eq!(cluster.history(), ["3 i:3", "4 i:4", "5 i:5"]);
}

#[test]
fn on_delete_updates_what_the_user_deletes() {
    let mut cluster = settled(json!({ "updateStrategy": { "type": "OnDelete", "rollingUpdate": null } }));
    cluster.edit(json!({ "template": template("i:2") }));
    settle(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1, web-1 i:1, web-2 i:1");
    let now = cluster.now;
    cluster.pods[1].deletion = Some(now);
    settle(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1, web-1 i:2, web-2 i:1");
}

#[test]
fn max_unavailable_updates_several_at_once() {
    let rolling = json!({ "rollingUpdate": { "partition": 1, "maxUnavailable": 2 } });
    let mut cluster = settled(json!({ "replicas": 5, "podManagementPolicy": "Parallel", "updateStrategy": rolling }));
    cluster.edit(json!({ "template": template("i:2") }));
    reconcile(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1, web-1 i:1, web-2 i:1, web-3 i:1 ending, web-4 i:1 ending");
    assert!(!reconcile(&mut cluster));
    settle(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1, web-1 i:2, web-2 i:2, web-3 i:2, web-4 i:2");
}

#[test]
fn a_pod_that_ended_is_made_again_under_its_name() {
    for phase in ["Failed", "Succeeded"] {
        let mut cluster = settled(json!({}));
        let before = cluster.pods[1].uid.clone();
        cluster.finish_pod(1, phase);
        settle(&mut cluster);
        assert_eq!(names(&cluster), "web-0 i:1, web-1 i:1, web-2 i:1");
        assert!(cluster.pods.iter().all(|pod| pod.uid != before), "{phase}");
    }
}

#[test]
fn min_ready_seconds_are_waited_for() {
    let mut cluster = cluster(json!({ "minReadySeconds": 10 }));
    reconcile(&mut cluster);
    cluster.start_pods();
    assert!(reconcile(&mut cluster), "the status says ready");
    assert_eq!(names(&cluster), "web-0 i:1");
    let again = status(&cluster.set(), &cluster.revisions(), &cluster.pods(), cluster.now).requeue_after.unwrap();
    assert!((10..=11).contains(&again.as_secs()), "{again:?}");
    cluster.tick(10);
    reconcile(&mut cluster);
    assert_eq!(names(&cluster), "web-0 i:1, web-1 i:1 unready");
}

#[test]
fn orphans_are_adopted_and_strangers_released() {
    let mut cluster = settled(json!({}));
    cluster.pods[1].owners.clear();
    let mut stranger = cluster.pods[0].clone();
    (stranger.name, stranger.uid) = ("other-0".into(), "other".into());
    cluster.pods.push(stranger);
    let told: Vec<String> = planned(&cluster)
        .steps
        .iter()
        .map(|step| match &step.op {
            Op::Patch { name, body, .. } => {
                format!("{name} {}", body["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len))
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["web-1 1", "other-0 0"]);
    cluster.pods.pop();
    cluster.revisions[0].metadata.owner_references = None;
    reconcile(&mut cluster);
    assert_eq!(cluster.revisions.len(), 1);
    assert_eq!(cluster.revisions[0].metadata.owner_references.as_ref().unwrap()[0].name, "web");
}

#[test]
fn a_set_that_is_being_deleted_is_left_alone() {
    let mut cluster = settled(json!({}));
    cluster.set["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    cluster.pods.pop();
    assert!(planned(&cluster).is_empty());
    assert!(history(&cluster.set(), &[]).is_empty(), "its revisions go with it");
}

fn with_claims(policy: Value) -> Cluster {
    let claim = json!({ "metadata": { "name": "www" }, "spec": { "accessModes": ["ReadWriteOnce"] } });
    settled(json!({ "volumeClaimTemplates": [claim], "persistentVolumeClaimRetentionPolicy": policy }))
}

/// `CLAIM OWNER` of each claim.
fn owners(cluster: &Cluster) -> Vec<String> {
    let owner = |claim: &reconcile::statefulset::ClaimView| {
        let owners: Vec<String> = claim.owners.iter().map(|owner| format!(" {}", owner.kind)).collect();
        format!("{}{}", claim.name, owners.concat())
    };
    cluster.claims.iter().map(owner).collect()
}

#[test]
fn claims_come_with_their_pods_and_go_by_the_policy() {
    let mut kept = with_claims(json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }));
    assert_eq!(owners(&kept), ["www-web-0", "www-web-1", "www-web-2"]);
    assert_eq!(kept.pods[0].claims, [("www".to_owned(), "www-web-0".to_owned())]);
    kept.edit(json!({ "replicas": 1 }));
    settle(&mut kept);
    assert_eq!(owners(&kept), ["www-web-0", "www-web-1", "www-web-2"]);

    let mut scaled = with_claims(json!({ "whenDeleted": "Delete", "whenScaled": "Delete" }));
    assert_eq!(owners(&scaled), ["www-web-0 StatefulSet", "www-web-1 StatefulSet", "www-web-2 StatefulSet"]);
    scaled.edit(json!({ "replicas": 2 }));
    reconcile(&mut scaled);
    assert_eq!(owners(&scaled), ["www-web-0 StatefulSet", "www-web-1 StatefulSet", "www-web-2 Pod"]);
    settle(&mut scaled);
    assert_eq!(owners(&scaled), ["www-web-0 StatefulSet", "www-web-1 StatefulSet"]);
}

#[test]
fn a_pod_waits_for_a_claim_that_goes() {
    let mut cluster = with_claims(json!({ "whenDeleted": "Retain", "whenScaled": "Delete" }));
    cluster.edit(json!({ "replicas": 2 }));
    reconcile(&mut cluster);
    assert_eq!(owners(&cluster)[2], "www-web-2 Pod");
    // The pod is gone, its claim not yet: a new pod must not get it.
    let claims = cluster.claims.clone();
    cluster.end_pods();
    cluster.claims = claims;
    cluster.said();
    cluster.edit(json!({ "replicas": 3 }));
    reconcile(&mut cluster);
    assert_eq!(cluster.said(), Vec::<String>::new());
    cluster.claims.pop();
    reconcile(&mut cluster);
    assert_eq!(
        cluster.said(),
        [
            "SuccessfulCreate: Create Claim www-web-2 Pod web-2 in StatefulSet web success",
            "SuccessfulCreate: Create Pod web-2 in StatefulSet web successful",
        ]
    );
    settle(&mut cluster);
    cluster.claims[1].deleting = true;
    let now = cluster.now;
    cluster.pods.iter_mut().find(|pod| pod.name == "web-1").unwrap().deletion = Some(now);
    cluster.end_pods();
    cluster.said();
    reconcile(&mut cluster);
    let why = "FailedCreate: Create Pod web-1 in StatefulSet web failed error: pvc www-web-1 is being deleted";
    assert_eq!(cluster.said(), [why]);
}

/// Ordinals that a plan creates and deletes.
fn moves(plan: &Plan) -> (Vec<i32>, Vec<i32>) {
    let (mut created, mut deleted) = (Vec::new(), Vec::new());
    for step in plan.steps.iter().chain(&plan.batch) {
        let ordinal = |name: &str| name.rsplit('-').next().unwrap().parse().unwrap();
        match &step.op {
            Op::Create { resource: PODS, object, .. } => {
                created.push(ordinal(object["metadata"]["name"].as_str().unwrap()));
            }
            Op::Delete { resource: PODS, name, .. } => deleted.push(ordinal(name)),
            _ => {}
        }
    }
    (created, deleted)
}

/// What the order allows of the next plan.
fn check(cluster: &Cluster, seed: u64, step: usize) {
    let set: k8s_openapi::api::apps::v1::StatefulSet = cluster.set();
    let spec = set.spec.as_ref().unwrap();
    let (replicas, min_ready) = (spec.replicas.unwrap(), spec.min_ready_seconds.unwrap_or(0));
    let available = |ordinal: i32| {
        let pod = cluster.pods.iter().find(|pod| pod.name == format!("web-{ordinal}"));
        pod.is_some_and(|pod| pod.is_active() && pod.is_available(min_ready, cluster.now))
    };
    let (created, deleted) = moves(&planned(cluster));
    let why = || format!("seed {seed} step {step}: {} creates {created:?} deletes {deleted:?}", names(cluster));
    assert!(created.iter().all(|ordinal| *ordinal < replicas), "{}", why());
    if spec.pod_management_policy.as_deref() == Some("Parallel") {
        let rolling = spec.update_strategy.as_ref().unwrap().rolling_update.as_ref().unwrap();
        let Some(bound) = &rolling.max_unavailable else { return };
        let k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(bound) = bound else { panic!() };
        let healthy: Vec<i32> = deleted.iter().copied().filter(|o| *o < replicas && available(*o)).collect();
        let missing = (0..replicas).filter(|ordinal| !available(*ordinal)).count();
        assert!(healthy.is_empty() || healthy.len() + missing <= usize::try_from(*bound).unwrap(), "{}", why());
        return;
    }
    assert!(created.len() + deleted.len() <= 1, "{}", why());
    for ordinal in &created {
        assert!((0..*ordinal).all(available), "{}", why());
    }
    for ordinal in &deleted {
        let failed = cluster.pods.iter().any(|pod| pod.name == format!("web-{ordinal}") && pod.is_finished());
        let above = cluster.pods.iter().any(|pod| {
            let other: i32 = pod.name.rsplit('-').next().unwrap().parse().unwrap();
            other > *ordinal && other >= replicas
        });
        assert!(failed || !above, "{}", why());
        assert!(failed || (0..replicas.min(*ordinal)).all(available), "{}", why());
    }
}

#[test]
fn order_identity_and_bounds_hold_in_random_histories() {
    for seed in 0..SEEDS {
        let mut dice = Dice::new(seed);
        let parallel = dice.below(2) == 0;
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let mut rolling = json!({ "partition": dice.below(3) });
        if dice.below(2) == 0 {
            rolling["maxUnavailable"] = (1 + dice.below(3)).into();
        }
        let mut cluster = settled(json!({ "replicas": dice.below(6), "podManagementPolicy": policy,
            "minReadySeconds": 2 * dice.below(2), "updateStrategy": { "rollingUpdate": rolling } }));
        for step in 0..200 {
            let index = dice.below(cluster.pods.len().max(1));
            match dice.below(24) {
                0 => cluster.edit(json!({ "template": template(&format!("i:{}", 1 + dice.below(3))) })),
                1 => cluster.edit(json!({ "replicas": dice.below(7) })),
                2 => cluster.finish_pod(index, "Failed"),
                3 => cluster.edit(json!({ "updateStrategy": { "rollingUpdate": { "partition": dice.below(4) } } })),
                4..=9 => cluster.start_pod(index),
                10..=14 => cluster.end_pod(index),
                15 => cluster.tick(1),
                _ => {
                    check(&cluster, seed, step);
                    reconcile(&mut cluster);
                }
            }
            let mut names: Vec<&str> = cluster.pods.iter().map(|pod| pod.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), cluster.pods.len(), "seed {seed} step {step}");
        }
        cluster.edit(json!({ "updateStrategy": { "rollingUpdate": { "partition": 0 } } }));
        settle(&mut cluster);
        let status = &cluster.set["status"];
        let replicas = cluster.set["spec"]["replicas"].clone();
        assert_eq!((&status["replicas"], &status["availableReplicas"]), (&replicas, &replicas), "seed {seed}");
        assert_eq!(status["currentRevision"], status["updateRevision"], "seed {seed}");
        let wanted = cluster.set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
        assert!(cluster.pods.iter().all(|pod| cluster.image(pod) == wanted), "seed {seed}: {}", names(&cluster));
    }
}

//! What the users of a simulated cluster create, change and delete.

use serde_json::{Value, json};

use crate::api::Api;
use crate::dice::Dice;

/// What must hold in a calm history.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Pods of the Deployment at most.
    pub most: usize,
    /// Available pods of the Deployment at least.
    pub least: usize,
    /// Ready pods under the disruption budget at least.
    pub guarded: usize,
    pub min_ready: i32,
}

/// Of pods that nobody pushes out; most have 0.
pub const VIP_PRIORITY: i32 = 1000;
/// Of pods that fill what room is left.
const FILLER_PRIORITY: i32 = -10;
const CRON_POLICIES: [&str; 3] = ["Allow", "Forbid", "Replace"];

pub fn template(app: &str, image: usize, cpu: &str) -> Value {
    json!({ "metadata": { "labels": { "app": app } }, "spec": { "containers": [{ "name": "c",
        "image": format!("i:{image}"), "resources": { "requests": { "cpu": cpu } } }] } })
}

pub fn object(api_version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": name }, "spec": spec })
}

pub fn selector(app: &str) -> Value {
    json!({ "matchLabels": { "app": app } })
}

pub fn create(api: &mut Api, object: Value) {
    let kind = crate::roles::KINDS.into_iter().find(|kind| object["kind"] == *kind).unwrap_or_default();
    // The names of a scenario are its own.
    let _ = api.create(kind, object);
}

/// A Deployment, a StatefulSet, a DaemonSet, a Job, a ReplicaSet under a budget and a Deployment to be deleted.
pub fn populate(api: &mut Api, dice: &mut Dice) -> Bounds {
    let (replicas, surge, unavailable) = (1 + dice.below(5), dice.below(3), dice.below(3));
    let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
    let min_ready = 3 * i32::from(dice.once_in(2));
    create(
        api,
        object(
            "apps/v1",
            "Deployment",
            "web",
            json!({ "replicas": replicas, "selector": selector("web"),
        "template": template("web", 1, "400m"), "minReadySeconds": min_ready, "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": 600, "strategy": { "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } } }),
        ),
    );
    create(
        api,
        object(
            "apps/v1",
            "Deployment",
            "doomed",
            json!({ "replicas": 2, "selector": selector("doomed"),
        "template": template("doomed", 1, "100m"), "revisionHistoryLimit": 2, "progressDeadlineSeconds": 600 }),
        ),
    );
    let policy = if dice.once_in(2) { "Parallel" } else { "OrderedReady" };
    create(
        api,
        object(
            "apps/v1",
            "StatefulSet",
            "set",
            json!({ "replicas": 1 + dice.below(3), "serviceName": "set",
        "selector": selector("set"), "template": template("set", 1, "300m"), "podManagementPolicy": policy,
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } } }),
        ),
    );
    create(
        api,
        object(
            "apps/v1",
            "DaemonSet",
            "agent",
            json!({ "selector": selector("agent"),
        "template": template("agent", 1, "100m"), "updateStrategy": { "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 + dice.below(2) } } }),
        ),
    );
    let guarded = 2 + dice.below(3);
    let least = 1 + dice.below(guarded - 1);
    create(
        api,
        object(
            "apps/v1",
            "ReplicaSet",
            "guarded",
            json!({ "replicas": guarded, "selector": selector("guarded"),
        "template": template("guarded", 1, "200m") }),
        ),
    );
    let rule =
        if dice.once_in(2) { json!({ "minAvailable": least }) } else { json!({ "maxUnavailable": guarded - least }) };
    let mut budget = json!({ "selector": selector("guarded") });
    reconcile::plan::merge(&mut budget, &rule);
    create(api, object("policy/v1", "PodDisruptionBudget", "guard", budget));
    create(api, job(dice));
    create(api, indexed_job(dice));
    create(api, cron_job(dice));
    Bounds { most: replicas + surge, least: replicas.saturating_sub(unavailable), guarded: least, min_ready }
}

fn job(dice: &mut Dice) -> Value {
    let mut template = template("job", 1, "300m");
    template["spec"]["restartPolicy"] = "Never".into();
    let replacement = if dice.once_in(2) { "Failed" } else { "TerminatingOrFailed" };
    object(
        "batch/v1",
        "Job",
        "job",
        json!({ "completions": 1 + dice.below(6), "parallelism": 1 + dice.below(3),
        "backoffLimit": 1000, "completionMode": "NonIndexed", "podReplacementPolicy": replacement, "suspend": true,
        "selector": selector("job"), "template": template }),
    )
}

/// One of its indexes always fails.
fn indexed_job(dice: &mut Dice) -> Value {
    let mut template = template("indexed", 1, "200m");
    template["spec"]["restartPolicy"] = "Never".into();
    let replacement = if dice.once_in(2) { "Failed" } else { "TerminatingOrFailed" };
    object(
        "batch/v1",
        "Job",
        "indexed",
        json!({ "completions": 2 + dice.below(4), "parallelism": 1 + dice.below(3), "backoffLimit": i32::MAX,
        "backoffLimitPerIndex": dice.below(3), "completionMode": "Indexed", "podReplacementPolicy": replacement,
        "suspend": true, "selector": selector("indexed"), "template": template }),
    )
}

/// Its name says its policy.
fn cron_job(dice: &mut Dice) -> Value {
    let policy = CRON_POLICIES[dice.below(3)];
    let mut template = template("tick", 1, "100m");
    template["spec"]["restartPolicy"] = "Never".into();
    let name = format!("tick-{}", policy.to_lowercase());
    object(
        "batch/v1",
        "CronJob",
        &name,
        json!({ "schedule": "* * * * *", "concurrencyPolicy": policy, "suspend": true,
        "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1, "jobTemplate": { "spec": {
            "completions": 1, "parallelism": 1, "backoffLimit": 100, "completionMode": "NonIndexed",
            "podReplacementPolicy": "TerminatingOrFailed", "selector": selector("tick"), "template": template } } }),
    )
}

/// Fills what room is left with pods that everybody may push out, some of whom are of the highest priority.
pub fn crowd(api: &mut Api, vips: bool) {
    let with = |app: &str, cpu: &str, priority: i32| {
        let mut template = template(app, 1, cpu);
        template["spec"]["priority"] = priority.into();
        template
    };
    let filler = json!({ "replicas": 10, "selector": selector("filler"), "revisionHistoryLimit": 2,
        "template": with("filler", "1", FILLER_PRIORITY), "progressDeadlineSeconds": 600 });
    create(api, object("apps/v1", "Deployment", "filler", filler));
    if vips {
        let vip = json!({ "replicas": 1, "selector": selector("vip"), "template": with("vip", "500m", VIP_PRIORITY) });
        create(api, object("apps/v1", "ReplicaSet", "vip", vip));
    }
}

/// Jobs begin to run, and the CronJob to start them.
pub fn begin_work(api: &mut Api) {
    edit(api, "Job", "job", json!({ "suspend": false }));
    edit(api, "Job", "indexed", json!({ "suspend": false }));
    suspend_cron_jobs(api, false);
}

pub fn suspend_cron_jobs(api: &mut Api, suspend: bool) {
    let names: Vec<String> = api.list("CronJob").map(|cron_job| cron_job.name().to_owned()).collect();
    for name in names {
        edit(api, "CronJob", &name, json!({ "suspend": suspend }));
    }
}

pub fn edit(api: &mut Api, kind: &'static str, name: &str, spec: Value) -> String {
    let said = format!("User edits {kind} {name}: {spec}");
    let result = api.patch(kind, name, false, false, &json!({ "spec": spec }));
    format!("{said} {result:?}")
}

/// One thing that a user does; in a calm history nothing that takes pods of the Deployment away by itself.
pub fn act(api: &mut Api, dice: &mut Dice, calm: bool, node: &str) -> String {
    let image = 1 + dice.below(3);
    match dice.below(14) {
        0 | 1 => edit(api, "Deployment", "web", json!({ "template": template("web", image, "400m") })),
        2 => edit(api, "Deployment", "web", json!({ "paused": dice.once_in(2) })),
        3 => edit(api, "StatefulSet", "set", json!({ "template": template("set", image, "300m") })),
        4 => edit(api, "StatefulSet", "set", json!({ "replicas": dice.below(4) })),
        5 => edit(api, "DaemonSet", "agent", json!({ "template": template("agent", image, "100m") })),
        6 => edit(api, "Job", "job", json!({ "suspend": dice.once_in(3) })),
        7 => edit(api, "Job", "job", json!({ "parallelism": 1 + dice.below(3) })),
        8 => edit(api, "Deployment", "doomed", json!({ "replicas": dice.below(4) })),
        9 => edit(api, "Node", node, json!({ "unschedulable": dice.once_in(2) })),
        10 => edit(api, "Job", "indexed", json!({ "suspend": dice.once_in(3) })),
        11 if api.get("ReplicaSet", "vip").is_some() => {
            edit(api, "ReplicaSet", "vip", json!({ "replicas": dice.below(4) }))
        }
        12 if !calm => edit(api, "Deployment", "web", json!({ "replicas": 1 + dice.below(5) })),
        _ => {
            let names = api.list("Pod").filter(|_| !calm).map(|pod| pod.name().to_owned());
            let names: Vec<String> = names.collect();
            let Some(name) = dice.pick(&names) else { return "User looks around".to_owned() };
            format!("User deletes {name}: {:?}", api.delete("Pod", name, (None, None), None, ""))
        }
    }
}

/// Somebody drains: asks for the eviction of a guarded pod.
pub fn evict(api: &mut Api, dice: &mut Dice) -> String {
    let guarded = api
        .list("Pod")
        .filter_map(|pod| pod.pod())
        .filter(|pod| pod.labels.get("app").is_some_and(|app| app == "guarded"));
    let names: Vec<String> = guarded.map(|pod| pod.name.clone()).collect();
    let Some(name) = dice.pick(&names) else { return "nobody to evict".to_owned() };
    let half = dice.once_in(8);
    format!("Eviction of {name}: {:?}", api.evict(name, half))
}

/// Ends what would keep the cluster from coming to rest as it should.
pub fn calm_down(api: &mut Api, nodes: &[String]) {
    edit(api, "Deployment", "web", json!({ "paused": false }));
    crate::features::calm_down(api);
    begin_work(api);
    for node in nodes {
        edit(api, "Node", node, json!({ "unschedulable": false }));
    }
}

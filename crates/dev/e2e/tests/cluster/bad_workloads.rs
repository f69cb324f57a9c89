//! Workloads that cannot be: each gets an error at once, or a condition and an event that say why; nothing spins over them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{BUSYBOX, Cluster, Scope, contains, eventually};
use machine::processes::Process;

const WITHIN: Duration = Duration::from_secs(60);
/// Time over which the control plane's work is measured.
const WATCHED: Duration = Duration::from_secs(5);
/// Share of a core that pods which fail and wait may cost the control plane, with its node and in a debug build.
const WORK_MAX: f64 = 0.4;

fn manifest(api: &str, kind: &str, spec: &str) -> String {
    format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: bad}}\nspec: {spec}\n")
}

const TEMPLATE: &str = "template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c, image: i}]}}";
const ONCE: &str =
    "template: {metadata: {labels: {app: x}}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}";
const X: &str = "selector: {matchLabels: {app: x}}";

/// What is refused: API version and kind, spec, and what the error says.
fn refusals() -> Vec<(&'static str, &'static str, String, &'static str)> {
    let apps = |kind, spec: &str, why| ("apps/v1", kind, format!("{{{X}, {TEMPLATE}, {spec}}}"), why);
    let job = |spec: &str, why| ("batch/v1", "Job", format!("{{{ONCE}, {spec}}}"), why);
    let cron = |spec: &str, why| ("batch/v1", "CronJob", format!("{{jobTemplate: {{spec: {{{ONCE}}}}}, {spec}}}"), why);
    let pod =
        |container: &str, why| ("v1", "Pod", format!("{{containers: [{{name: c, image: i, {container}}}]}}"), why);
    vec![
        apps("Deployment", "replicas: -1", "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        apps("Deployment", "revisionHistoryLimit: -1", "spec.revisionHistoryLimit: Invalid value: -1: must be greater"),
        apps(
            "Deployment",
            "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}",
            "maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        apps("Deployment", "progressDeadlineSeconds: 5, minReadySeconds: 9", "must be greater than minReadySeconds"),
        apps("ReplicaSet", "replicas: -1", "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        apps("StatefulSet", "replicas: -1", "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        apps("StatefulSet", "ordinals: {start: -1}", "spec.ordinals.start: Invalid value: -1: must be greater"),
        apps("DaemonSet", "minReadySeconds: -1", "spec.minReadySeconds: Invalid value: -1: must be greater than or"),
        apps("DaemonSet", "updateStrategy: {rollingUpdate: {maxUnavailable: 0}}", "cannot be 0 when maxSurge is 0"),
        (
            "apps/v1",
            "Deployment",
            format!("{{selector: {{}}, {TEMPLATE}}}"),
            "empty selector is invalid for deployment",
        ),
        ("apps/v1", "DaemonSet", format!("{{selector: {{}}, {TEMPLATE}}}"), "empty selector is invalid for daemonset"),
        (
            "apps/v1",
            "StatefulSet",
            format!("{{selector: {{matchLabels: {{app: other}}}}, {TEMPLATE}}}"),
            "`selector` does not match template `labels`",
        ),
        (
            "apps/v1",
            "Deployment",
            format!("{{selector: {{matchExpressions: [{{key: app, operator: Sort}}]}}, {TEMPLATE}}}"),
            "\"Sort\": not a valid selector operator",
        ),
        ("v1", "ReplicationController", format!("{{replicas: -1, selector: {{app: x}}, {TEMPLATE}}}"), "spec.replicas"),
        job("parallelism: -1", "spec.parallelism: Invalid value: -1: must be greater than or equal to 0"),
        job("completions: -1", "spec.completions: Invalid value: -1: must be greater than or equal to 0"),
        job("backoffLimit: -1", "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"),
        job(
            "activeDeadlineSeconds: -1",
            "spec.activeDeadlineSeconds: Invalid value: -1: must be greater than or equal",
        ),
        job(
            "completionMode: Indexed, parallelism: 2",
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        job("backoffLimitPerIndex: 1", "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"),
        cron("schedule: '* * * *'", "spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4"),
        cron(
            "schedule: '61 * * * *'",
            "spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59)",
        ),
        cron("schedule: '@often'", "spec.schedule: Invalid value: \"@often\": unrecognized descriptor: @often"),
        cron("schedule: '* * * * *', timeZone: Nowhere/City", "unknown time zone Nowhere/City"),
        cron("schedule: '* * * * *', startingDeadlineSeconds: -1", "spec.startingDeadlineSeconds: Invalid value: -1"),
        cron("schedule: '* * * * *', successfulJobsHistoryLimit: -1", "must be greater than or equal to 0"),
        cron("schedule: '* * * * *', concurrencyPolicy: Maybe", "spec.concurrencyPolicy: Unsupported value: \"Maybe\""),
        ("policy/v1", "PodDisruptionBudget", "{minAvailable: -1}".into(), "spec.minAvailable: Invalid value: -1"),
        (
            "policy/v1",
            "PodDisruptionBudget",
            "{minAvailable: 1, maxUnavailable: 1}".into(),
            "minAvailable and maxUnavailable cannot be both set",
        ),
        pod("resources: {limits: {memory: -4Ki}}", "must be greater than or equal to 0"),
        pod("resources: {limits: {memory: 4XB}}", "quantities must match the regular expression"),
        pod("resources: {requests: {cpu: 2}, limits: {cpu: 1}}", "must be less than or equal to cpu limit of 1"),
    ]
}

pub fn are_refused(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "bad-workloads")?;
    let mut wrong = Vec::new();
    for (api, kind, spec, why) in refusals() {
        match scope.apply(&manifest(api, kind, &spec)) {
            Ok(said) => wrong.push(format!("{kind} {spec} was taken: {said}")),
            Err(error) => {
                let said = format!("{error:#}");
                if !said.contains(why) {
                    wrong.push(format!("{kind} {spec}\n  says {said}\n  not  {why}"));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let negative = "patch deployment none --subresource=scale --type=merge -p {\"spec\":{\"replicas\":-1}}";
    scope.run("create deployment none --image i --replicas 0")?;
    scope.fails(negative, &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"])?;
    budgets(&scope)?;
    scope.delete()
}

/// A budget's empty selector means every pod, a missing one none.
fn budgets(scope: &Scope<'_>) -> Result<()> {
    let pod = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec: {{terminationGracePeriodSeconds: 1, containers: [{{name: c, image: 'tug.local/demo:latest', imagePullPolicy: IfNotPresent}}]}}\n---\n"
        )
    };
    let budget = |name: &str, selector: &str| {
        format!(
            "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {{name: {name}}}\nspec: {{minAvailable: 1{selector}}}\n---\n"
        )
    };
    let all = [pod("a"), pod("b"), budget("everything", ", selector: {}"), budget("nothing", "")].concat();
    scope.apply(&all)?;
    scope.run("wait pods a b --for=condition=Ready --timeout=60s")?;
    let status = "{.status.expectedPods} {.status.currentHealthy} {.status.disruptionsAllowed}";
    scope.field_becomes("pdb everything", status, "2 2 1")?;
    scope.field_becomes("pdb nothing", status, "0 0 0")?;
    scope.run("delete pdb everything nothing").map(|_| ())
}

/// Pods that the API has to take, and what the node or the scheduler says about each.
const HOPELESS: &[(&str, &str, &[&str])] = &[
    ("no-image", "{name: c, image: 'tug.local/none:1', imagePullPolicy: Never}", &["ErrImageNeverPull"]),
    ("unreachable-image", "{name: c, image: 'localhost:1/none:1'}", &["ErrImagePull", "Failed to pull image"]),
    ("image-name", "{name: c, image: 'UPPER/Case'}", &["InspectFailed", "couldn't parse image name"]),
    (
        "no-command",
        "{name: c, image: BUSYBOX, imagePullPolicy: IfNotPresent, command: [/none]}",
        &["/none", "no such file or directory"],
    ),
    (
        "no-map",
        "{name: c, image: BUSYBOX, imagePullPolicy: IfNotPresent, envFrom: [{configMapRef: {name: none}}]}",
        &["Failed", "configmap \"none\" not found"],
    ),
    (
        "no-user",
        "{name: c, image: BUSYBOX, imagePullPolicy: IfNotPresent, securityContext: {runAsNonRoot: true, runAsUser: 0}}",
        &["runAsUser breaks non-root policy"],
    ),
    (
        "tiny",
        "{name: c, image: BUSYBOX, imagePullPolicy: IfNotPresent, command: [/bin/busybox, sleep, '9'], resources: {limits: {memory: 4Ki}}}",
        &["Failed", "memory"],
    ),
    (
        "huge",
        "{name: c, image: BUSYBOX, resources: {requests: {memory: 1000Ti}}}",
        &["FailedScheduling", "Insufficient memory"],
    ),
];

pub fn are_explained(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "hopeless")?;
    for (name, container, _) in HOPELESS {
        let container = container.replace("BUSYBOX", BUSYBOX);
        scope.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{terminationGracePeriodSeconds: 1, containers: [{container}]}}\n"
        ))?;
    }
    for (name, _, words) in HOPELESS {
        eventually(WITHIN, name, || {
            let events = scope.field(
                &format!("events --field-selector involvedObject.name={name}"),
                "{range .items[*]}{.type} {.reason} {.message}{\"\\n\"}{end}",
            )?;
            let status = scope.field(&format!("pod {name}"), "{.status}")?;
            contains(&events, &["Warning"])?;
            contains(&format!("{events}{status}"), words)
        })?;
        let ready =
            "{.status.conditions[?(@.type==\"Ready\")].status}{.status.conditions[?(@.type==\"PodScheduled\")].status}";
        contains(&scope.field(&format!("pod {name}"), ready)?, &["False"])?;
    }
    calm(cluster)?;
    scope.run("delete pods --all --timeout=60s")?;
    scope.delete()
}

/// The control plane lives and has little to do.
fn calm(cluster: &Cluster) -> Result<()> {
    let server = Process::read(&cluster.dir().join("server.pid")).context("no control plane runs")?;
    let begun = spent(&server)?;
    std::thread::sleep(WATCHED);
    let work = (spent(&server)? - begun) / WATCHED.as_secs_f64();
    ensure!(work < WORK_MAX, "the control plane used {work:.2} of a core over pods that wait");
    Ok(())
}

/// Seconds of a processor that a process has used.
fn spent(process: &Process) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid))?;
    let after_name = stat.rsplit(')').next().context("no name in stat")?;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    // USER_HZ is 100 on every Linux that containers run on
    Ok(ticks / 100.0)
}

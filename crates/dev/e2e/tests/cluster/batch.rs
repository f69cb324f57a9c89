//! Work that ends: an Indexed Job with a failing index, a CronJob, and a drain that a disruption budget holds back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{BUSYBOX, Cluster, Scope, contains, eventually};

/// A CronJob is due within a minute; its Job takes a moment.
const NEXT_MINUTE: Duration = Duration::from_secs(90);

fn template(script: &str) -> String {
    format!(
        "
      spec:
        restartPolicy: Never
        containers:
        - {{name: c, image: {BUSYBOX}, imagePullPolicy: IfNotPresent, command: [/bin/busybox, sh, -c, '{script}']}}"
    )
}

pub fn jobs(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "batch")?;
    let indexed = template(
        "echo \"$JOB_COMPLETION_INDEX on $(/bin/busybox hostname)\"; /bin/busybox test $JOB_COMPLETION_INDEX != 1",
    );
    scope.apply(&format!(
        "
apiVersion: batch/v1
kind: Job
metadata: {{name: indexed}}
spec:
  completions: 4
  parallelism: 2
  completionMode: Indexed
  backoffLimitPerIndex: 0
  template:{indexed}"
    ))?;
    scope.run("wait job/indexed --for=condition=Failed --timeout=60s")?;
    let status = scope.get("job indexed")?["status"].clone();
    ensure!(status["completedIndexes"] == "0,2,3" && status["failedIndexes"] == "1", "{status}");
    ensure!(status["succeeded"] == 3 && status["failed"] == 1, "{status}");
    let pods = scope.field("pods -l batch.kubernetes.io/job-completion-index=2", "{.items[*].metadata.name}")?;
    scope.says(&format!("logs {pods}"), &["2 on indexed-2"])?;
    scope.says("describe job indexed", &["FailedIndexes", "Job has failed indexes", "SuccessfulCreate"])?;
    scope.says("get jobs", &["indexed", "Failed", "3/4"])?;
    scope.run("delete job indexed --wait=true --timeout=30s")?;
    eventually(Duration::from_secs(30), "the pods go with their Job", || {
        let left = scope.field("pods", "{.items[*].metadata.name}")?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })?;
    cron_job(&scope)?;
    scope.delete()
}

fn cron_job(scope: &Scope<'_>) -> Result<()> {
    scope.fails("create cronjob bad --image i --schedule 61", &["expected exactly 5 fields, found 1: [61]"])?;
    let template = template("/bin/busybox date");
    let template = template.replace('\n', "\n  ");
    scope.apply(&format!(
        "
apiVersion: batch/v1
kind: CronJob
metadata: {{name: tick}}
spec:
  schedule: '* * * * *'
  timeZone: Europe/Zurich
  jobTemplate:
    spec:
      template:{template}"
    ))?;
    scope.run("create job by-hand --from=cronjob/tick")?;
    scope.run("wait job/by-hand --for=condition=Complete --timeout=60s")?;
    eventually(NEXT_MINUTE, "the CronJob runs a Job", || {
        let last = scope.field("cronjob tick", "{.status.lastScheduleTime}")?;
        let success = scope.field("cronjob tick", "{.status.lastSuccessfulTime}")?;
        ensure!(!last.is_empty() && success >= last, "last started {last:?}, last succeeded {success:?}");
        Ok(())
    })?;
    scope.says("get cronjobs", &["tick", "* * * * *", "Europe/Zurich"])?;
    scope.run("delete cronjob tick").map(|_| ())
}

const GUARDED: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: guarded}
spec:
  replicas: 2
  selector: {matchLabels: {app: guarded}}
  template:
    metadata: {labels: {app: guarded}}
    spec:
      containers:
      - {name: demo, image: 'tug.local/demo:latest', imagePullPolicy: IfNotPresent}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: guard}
spec: {minAvailable: 2, selector: {matchLabels: {app: guarded}}}
";

pub fn drain(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "drain")?;
    scope.apply(GUARDED)?;
    scope.rolled_out("guarded")?;
    scope.field_becomes("pdb guard", "{.status.currentHealthy}/{.status.desiredHealthy}", "2/2")?;
    let node = scope.field("pods -l app=guarded", "{.items[0].spec.nodeName}")?;
    let node = node.split_whitespace().next().context("no pod")?.to_owned();
    let words = format!("drain {node} --ignore-daemonsets --force --delete-emptydir-data --pod-selector app=guarded");
    let drained = guarded_drain(&scope, &node, &words);
    scope.run(&format!("uncordon {node}"))?;
    drained?;
    scope.delete()
}

fn guarded_drain(scope: &Scope<'_>, node: &str, words: &str) -> Result<()> {
    let refused = "Cannot evict pod as it would violate the pod's disruption budget";
    scope.fails(&format!("{words} --timeout=8s"), &[refused])?;
    ensure!(scope.field("deployment guarded", "{.status.availableReplicas}")? == "2", "nothing was evicted");
    scope.args(&["patch", "pdb", "guard", "--type=merge", "-p", "{\"spec\":{\"minAvailable\":1}}"])?;
    scope.field_becomes("pdb guard", "{.status.disruptionsAllowed}", "1")?;
    contains(&scope.run(&format!("{words} --timeout=60s"))?, &["evicted", "drained"])?;
    scope.rolled_out("guarded")?;
    let left = scope
        .field(&format!("pods -l app=guarded --field-selector spec.nodeName={node}"), "{.items[*].metadata.name}")?;
    ensure!(left.is_empty(), "{left} stayed");
    Ok(())
}

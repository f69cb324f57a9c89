//! CronJobs over jumps of the clock and over pauses: what was missed is caught up once, and nothing stops for good.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Scope, eventually};
use serde_json::{Value, json};

const LOOK: Duration = Duration::from_secs(30);

/// The machine's clock stays; a status from another time is what a CronJob finds after its clock jumped.
fn last_scheduled(scope: &Scope<'_>, hours: i64) -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let when = time(i64::try_from(now)? / 60 * 60 + hours * 3600)?;
    let patch = json!({"status": {"lastScheduleTime": when}}).to_string();
    scope.args(&["patch", "cronjob", "tick", "--subresource=status", "--type=merge", "-p", &patch])?;
    Ok(when)
}

fn time(seconds: i64) -> Result<String> {
    let time = k8s_openapi::jiff::Timestamp::from_second(seconds).context("no such time")?;
    Ok(time.to_string())
}

fn tick(schedule: &str, more: &str) -> String {
    format!(
        "
apiVersion: batch/v1
kind: CronJob
metadata: {{name: tick}}
spec:
  schedule: '{schedule}'
  timeZone: Etc/UTC
  suspend: true
  successfulJobsHistoryLimit: 10
{more}
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
          - {{name: c, image: tug.local/demo:latest, imagePullPolicy: IfNotPresent, command: [/demo, exit, '0']}}"
    )
}

fn jobs(scope: &Scope<'_>) -> Result<Vec<Value>> {
    let list = scope.get("jobs")?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// A schedule of once in a half hour: what runs here, runs because of the jump.
pub fn of_the_clock(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "jumps")?;
    let minute = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() / 60 % 30;
    // between five and thirty minutes ago, and not again before this scenario has ended
    let (first, second) = ((minute + 20) % 30, (minute + 20) % 30 + 30);
    scope.apply(&tick(&format!("{first},{second} * * * *"), ""))?;
    let paused = "{.spec.suspend}{.status.lastScheduleTime}";
    ensure!(scope.field("cronjob tick", paused)? == "true", "a suspended CronJob starts nothing");

    // Three hours forward: six runs were missed, the last of them is started, once.
    last_scheduled(&scope, -3)?;
    resume(&scope, true)?;
    eventually(LOOK, "the last missed run is caught up", || {
        let count = jobs(&scope)?.len();
        ensure!(count == 1, "{count} Jobs");
        Ok(())
    })?;
    scope.run("wait jobs --all --for=condition=Complete --timeout=60s")?;
    scope.field_becomes("cronjob tick", "{.status.active}", "")?;
    ensure!(jobs(&scope)?.len() == 1, "of several missed runs one is started");
    let caught_up = scope.field("cronjob tick", "{.status.lastScheduleTime}")?;

    // Back by three hours: the last run lies ahead. Nothing is started twice, and nothing fails.
    let ahead = last_scheduled(&scope, 3)?;
    resume(&scope, false)?;
    resume(&scope, true)?;
    ensure!(jobs(&scope)?.len() == 1 && scope.field("cronjob tick", "{.status.lastScheduleTime}")? == ahead);
    // The clock is right again: it goes on.
    scope.run("delete jobs --all")?;
    last_scheduled(&scope, -1)?;
    eventually(LOOK, "it goes on after the clock was behind", || {
        let last = scope.field("cronjob tick", "{.status.lastScheduleTime}")?;
        ensure!(last == caught_up && jobs(&scope)?.len() == 1, "last {last}, before {caught_up}");
        Ok(())
    })?;

    deadline(&scope)?;
    scope.delete()
}

fn resume(scope: &Scope<'_>, on: bool) -> Result<()> {
    let patch = json!({"spec": {"suspend": !on}}).to_string();
    scope.args(&["patch", "cronjob", "tick", "--type=merge", "-p", &patch]).map(|_| ())
}

/// After a pause only a run that is still within its starting deadline is made up for.
fn deadline(scope: &Scope<'_>) -> Result<()> {
    scope.run("delete cronjob tick")?;
    scope.field_becomes("jobs", "{.items[*].metadata.name}", "")?;
    let year = "0 0 1 1 *";
    scope.apply(&tick(year, "  startingDeadlineSeconds: 100"))?;
    let before = last_scheduled(scope, -3 * 366 * 24)?;
    resume(scope, true)?;
    scope.run("create job by-hand --from=cronjob/tick")?;
    scope.run("wait job/by-hand --for=condition=Complete --timeout=60s")?;
    scope.run("delete job by-hand")?;
    let last = scope.field("cronjob tick", "{.status.lastScheduleTime}")?;
    ensure!(jobs(scope)?.is_empty() && last == before, "the deadline of the missed run has passed");
    let patch = json!({"spec": {"startingDeadlineSeconds": null}}).to_string();
    scope.args(&["patch", "cronjob", "tick", "--type=merge", "-p", &patch])?;
    eventually(LOOK, "without a deadline it is made up for", || {
        ensure!(jobs(scope)?.len() == 1);
        Ok(())
    })
}

//! CronJobs on a clock of the test's own: what is started, what is not, and what the status says.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use reconcile::cronjob::{plan, until_next};
use reconcile::plan::{CRON_JOBS, JOBS, Op, Plan, merge};
use serde_json::{Value, json};

struct World {
    cron_job: Value,
    jobs: Vec<Value>,
    now: Timestamp,
    /// What happened, in words.
    told: Vec<String>,
    wake: Option<f64>,
    count: i64,
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

impl World {
    /// Every hour, made at half past nine.
    fn new(spec: Value) -> Self {
        let mut whole = json!({ "schedule": "0 * * * *", "concurrencyPolicy": "Allow", "suspend": false,
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": { "metadata": { "labels": { "app": "x" } }, "spec": { "template": {} } } });
        merge(&mut whole, &spec);
        let metadata = json!({ "name": "c", "namespace": "a", "uid": "c", "resourceVersion": "1",
            "creationTimestamp": "2030-01-01T09:30:00Z" });
        let cron_job = json!({ "metadata": metadata, "spec": whole, "status": {} });
        let (jobs, told) = (Vec::new(), Vec::new());
        Self { cron_job, jobs, now: at("2030-01-01T09:30:00Z"), told, wake: None, count: 1 }
    }

    fn plan(&self) -> Plan {
        let cron_job: CronJob = serde_json::from_value(self.cron_job.clone()).unwrap();
        let jobs = self.jobs.iter().map(|job| serde_json::from_value::<Job>(job.clone()).map(Arc::new).unwrap());
        plan(&cron_job, &jobs.collect::<Vec<_>>(), &TimeZone::UTC, self.now)
    }

    /// Reconciles until nothing is left to do, at this time; answers what was told.
    fn run(&mut self, now: &str) -> Vec<String> {
        self.now = at(now);
        self.told.clear();
        for _ in 0..8 {
            let plan = self.plan();
            self.told.extend(plan.notes.iter().map(|note| note.reason.to_owned()));
            if plan.is_empty() {
                self.wake = plan.requeue_after.map(|wait| wait.as_secs_f64());
                return std::mem::take(&mut self.told);
            }
            for step in plan.steps {
                self.write(&step.op);
                self.told.extend(step.done.map(|note| note.reason.to_owned()));
            }
        }
        panic!("never settles: {:#?}", self.plan());
    }

    fn write(&mut self, op: &Op) {
        self.count += 1;
        match op {
            Op::Create { resource: JOBS, object, .. } => {
                let mut job = object.clone();
                assert!(!self.jobs.iter().any(|known| known["metadata"]["name"] == job["metadata"]["name"]));
                job["metadata"]["uid"] = format!("u{}", self.count).into();
                job["status"] = json!({ "startTime": self.now.to_string() });
                self.jobs.push(job);
            }
            Op::Delete { resource: JOBS, name, .. } => self.jobs.retain(|job| job["metadata"]["name"] != **name),
            Op::Patch { resource: CRON_JOBS, body, .. } => {
                assert_eq!(body["metadata"]["resourceVersion"], self.cron_job["metadata"]["resourceVersion"]);
                merge(&mut self.cron_job["status"], &body["status"]);
                self.cron_job["metadata"]["resourceVersion"] = self.count.to_string().into();
            }
            other => panic!("not a write of this controller: {other:?}"),
        }
    }

    fn finish(&mut self, index: usize, kind: &str) {
        let now = self.now.to_string();
        let condition = json!({ "type": kind, "status": "True", "lastTransitionTime": now });
        merge(&mut self.jobs[index]["status"], &json!({ "completionTime": now, "conditions": [condition] }));
    }

    /// Names of the Jobs, without their owner's.
    fn jobs(&self) -> String {
        let name = |job: &Value| job["metadata"]["name"].as_str().unwrap()[2..].to_owned();
        self.jobs.iter().map(name).collect::<Vec<_>>().join(" ")
    }

    fn active(&self) -> usize {
        self.cron_job["status"]["active"].as_array().map_or(0, Vec::len)
    }
}

#[test]
fn a_job_is_started_when_due_and_recorded_once() {
    let mut world = World::new(json!({}));
    assert!(world.run("2030-01-01T09:59:59Z").is_empty());
    assert_eq!((world.jobs(), world.wake), (String::new(), Some(1.1)));
    assert_eq!(world.run("2030-01-01T10:00:00Z"), ["SuccessfulCreate"]);
    assert_eq!((world.jobs().as_str(), world.active(), world.wake), ("31558200", 1, Some(3600.1)));
    let meta = &world.jobs[0]["metadata"];
    assert_eq!(meta["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"], "2030-01-01T10:00:00Z");
    assert_eq!((&meta["labels"]["app"], &meta["ownerReferences"][0]["kind"]), (&json!("x"), &json!("CronJob")));
    assert_eq!(world.cron_job["status"]["lastScheduleTime"], "2030-01-01T10:00:00Z");
    assert_eq!(world.cron_job["status"]["active"][0]["uid"], world.jobs[0]["metadata"]["uid"]);
    assert!(world.run("2030-01-01T10:30:00Z").is_empty());
    world.finish(0, "Complete");
    assert_eq!(world.run("2030-01-01T10:31:00Z"), ["SawCompletedJob"]);
    assert_eq!((world.active(), &world.cron_job["status"]["lastSuccessfulTime"]), (0, &json!("2030-01-01T10:30:00Z")));
    // One that was removed after it was recorded is not made again.
    world.jobs.clear();
    assert!(world.run("2030-01-01T10:32:00Z").is_empty());
}

#[test]
fn the_last_of_many_missed_times_is_started() {
    let mut world = World::new(json!({ "schedule": "* * * * *" }));
    assert_eq!(world.run("2030-01-02T09:30:30Z"), ["TooManyMissedTimes", "SuccessfulCreate"]);
    assert_eq!((world.jobs().as_str(), world.wake), ("31559610", Some(30.1)));
    assert_eq!(world.run("2030-01-02T09:31:00Z"), ["SuccessfulCreate"]);
}

#[test]
fn a_time_whose_deadline_passed_is_missed() {
    let mut world = World::new(json!({ "startingDeadlineSeconds": 20 }));
    assert_eq!(world.run("2030-01-01T10:00:19Z"), ["SuccessfulCreate"]);
    // A time before the deadline's window is not even looked at.
    assert!(world.run("2030-01-01T11:00:21Z").is_empty());
    assert_eq!(world.jobs().split(' ').count(), 1);
}

#[test]
fn concurrency_is_allowed_forbidden_or_replaced() {
    for (policy, told, jobs) in [
        ("Allow", vec!["SuccessfulCreate"], "31558200 31558260"),
        ("Forbid", vec!["JobAlreadyActive"], "31558200"),
        ("Replace", vec!["SuccessfulDelete", "SuccessfulCreate"], "31558260"),
    ] {
        let mut world = World::new(json!({ "concurrencyPolicy": policy }));
        world.run("2030-01-01T10:00:00Z");
        assert_eq!(world.run("2030-01-01T11:00:00Z"), told, "{policy}");
        assert_eq!((world.jobs().as_str(), world.active()), (jobs, jobs.split(' ').count()), "{policy}");
    }
    // What Forbid held back starts when the way is free.
    let mut world = World::new(json!({ "concurrencyPolicy": "Forbid" }));
    world.run("2030-01-01T10:00:00Z");
    world.run("2030-01-01T11:00:00Z");
    world.finish(0, "Complete");
    assert_eq!(world.run("2030-01-01T11:20:00Z"), ["SawCompletedJob", "SuccessfulCreate"]);
    assert_eq!(world.jobs(), "31558200 31558260");
}

#[test]
fn suspended_ones_start_nothing_and_catch_up_later() {
    let mut world = World::new(json!({ "suspend": true }));
    assert!(world.run("2030-01-01T10:00:00Z").is_empty());
    assert_eq!(world.wake, None);
    world.cron_job["spec"]["suspend"] = false.into();
    assert_eq!(world.run("2030-01-01T10:20:00Z"), ["SuccessfulCreate"]);
}

#[test]
fn the_oldest_finished_jobs_go_first() {
    let mut world = World::new(json!({ "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0 }));
    for (hour, end) in [(10, "Complete"), (11, "Failed"), (12, "Complete"), (13, "Complete")] {
        world.run(&format!("2030-01-01T{hour}:00:00Z"));
        let last = world.jobs.len() - 1;
        world.finish(last, end);
    }
    world.run("2030-01-01T13:10:00Z");
    assert_eq!(world.jobs(), "31558380");
    assert_eq!(world.active(), 0);
}

#[test]
fn jobs_of_others_and_lost_ones_are_told_of() {
    let mut world = World::new(json!({}));
    world.run("2030-01-01T10:00:00Z");
    let mut manual = world.jobs[0].clone();
    merge(&mut manual["metadata"], &json!({ "name": "c-manual", "uid": "m", "annotations": null }));
    world.jobs = vec![manual];
    assert_eq!(world.run("2030-01-01T10:10:00Z"), ["UnexpectedJob", "MissingJob", "UnexpectedJob"]);
    assert_eq!(world.active(), 0);
}

#[test]
fn what_cannot_be_scheduled_is_told_and_not_asked_again() {
    for (spec, told) in [
        (json!({ "schedule": "0 0 30 2 *" }), "InvalidSchedule"),
        (json!({ "schedule": "often" }), "UnparseableSchedule"),
        (json!({ "timeZone": "Europe/Atlantis" }), "UnknownTimeZone"),
    ] {
        let mut world = World::new(spec);
        assert_eq!(world.run("2030-01-01T12:00:00Z"), [told]);
        assert_eq!((world.jobs.len(), world.wake), (0, None));
    }
}

#[test]
fn zones_shift_the_schedule_and_show_in_the_annotation() {
    let mut world = World::new(json!({ "schedule": "0 12 * * *", "timeZone": "Europe/Zurich" }));
    assert_eq!(world.run("2030-01-01T11:00:01Z"), ["SuccessfulCreate"]);
    let annotations = &world.jobs[0]["metadata"]["annotations"];
    assert_eq!(annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"], "2030-01-01T12:00:00+01:00");
}

#[test]
fn a_changed_schedule_is_waited_for() {
    let world = World::new(json!({ "schedule": "*/30 * * * *" }));
    let cron_job: CronJob = serde_json::from_value(world.cron_job).unwrap();
    let wait = until_next(&cron_job, &TimeZone::UTC, at("2030-01-01T12:10:00Z")).unwrap();
    assert_eq!(wait.as_secs(), 20 * 60);
}

//! CronJobs: start a Job for the last scheduled time that has none, keep the status and the history.
//!
//! A Job's name is made of its scheduled time, so that two attempts at one time collide. A Job is made first; the
//! status then takes it from what is there, so that a reconcile may end anywhere in between.

pub mod due;

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meta::cron::Schedule;
use serde_json::{Value, json};

use self::due::Timetable;
use crate::conditions::seconds;
use crate::job::finished_condition;
use crate::ownership::{Owner, reference};
use crate::plan::{CRON_JOBS, JOBS, Note, Op, PatchKind, Plan, Step, difference, to_value};

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Missed times beyond this are warned of; the last one is started all the same.
const MISSED_MAX: usize = 100;
/// Clocks differ a little: a time is looked at this long after it came.
const WAKE_DELAY: Duration = Duration::from_millis(100);

/// Why no Job can be started until somebody changes the CronJob.
struct Unusable {
    reason: &'static str,
    message: String,
}

/// What the CronJob says about time.
fn timetable(spec: &CronJobSpec, local: &TimeZone) -> Result<Timetable, Unusable> {
    let unparseable = |why: String| Unusable {
        reason: "UnparseableSchedule",
        message: format!("unparseable schedule: {:?} : {why}", spec.schedule),
    };
    let zone = match spec.time_zone.as_deref() {
        Some(name) => meta::zones::find(name).ok_or_else(|| Unusable {
            reason: "UnknownTimeZone",
            message: format!("invalid timeZone: {name:?}: unknown time zone {name}"),
        })?,
        None => local.clone(),
    };
    Ok(Timetable { schedule: Schedule::parse(&spec.schedule).map_err(unparseable)?, zone })
}

/// After a change of the schedule: how long until it is due. What the new schedule would have missed is not caught up.
pub fn until_next(cron_job: &CronJob, local: &TimeZone, now: Timestamp) -> Option<Duration> {
    let timetable = timetable(&cron_job.spec, local).ok()?;
    wake(&timetable, earliest(cron_job, None, now), now)
}

/// The last scheduled or created; with a starting deadline not before that.
fn earliest(cron_job: &CronJob, deadline: Option<i64>, now: Timestamp) -> Timestamp {
    let last = cron_job.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let since = last.or(cron_job.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
    let from = deadline.and_then(|deadline| now.checked_sub(SignedDuration::from_secs(deadline)).ok());
    from.map_or(since, |from| from.max(since))
}

fn wake(timetable: &Timetable, from: Timestamp, now: Timestamp) -> Option<Duration> {
    let (last, _) = timetable.missed(from, now, 1);
    let next = timetable.next(last.unwrap_or(from))?;
    Some(Duration::try_from(next.duration_since(now)).unwrap_or_default() + WAKE_DELAY)
}

struct Controller<'a> {
    cron_job: &'a CronJob,
    spec: &'a CronJobSpec,
    jobs: &'a [Arc<Job>],
    now: Timestamp,
    about: ObjectReference,
    plan: Plan,
}

/// The next writes. `jobs` are those that the CronJob controls, and all live Jobs that its status names; `local` is the
/// zone of schedules that name none.
pub fn plan(cron_job: &CronJob, jobs: &[Arc<Job>], local: &TimeZone, now: Timestamp) -> Plan {
    let spec = &cron_job.spec;
    let about = reference(CRON_JOBS, &cron_job.metadata);
    let mut controller = Controller { cron_job, spec, jobs, now, about, plan: Plan::default() };
    let old = cron_job.status.clone().unwrap_or_default();
    let mut status = old.clone();
    controller.clean_history(&mut status);
    controller.observe(&mut status);
    if let Some(difference) = difference(&old, &status) {
        controller.write_status(difference);
        // What is started next depends on the status that others can see.
        return controller.plan;
    }
    if controller.plan.steps.is_empty() && cron_job.metadata.deletion_timestamp.is_none() {
        controller.schedule(local, status);
    }
    controller.plan
}

fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

fn is_in(active: &CronJobStatus, job: &Job) -> bool {
    active.active.iter().flatten().any(|known| known.uid == job.metadata.uid)
}

fn remove(status: &mut CronJobStatus, uid: Option<&String>) {
    if let Some(active) = &mut status.active {
        active.retain(|known| known.uid.as_ref() != uid);
    }
    status.active = status.active.take().filter(|active| !active.is_empty());
}

/// The time that a Job was made for, if it was made by this controller.
fn scheduled_at(cron_job: &CronJob, job: &Job) -> Option<Timestamp> {
    let text = job.metadata.annotations.as_ref()?.get(SCHEDULED_AT)?;
    let time: Timestamp = text.parse().ok()?;
    (name(job) == job_name(cron_job, time)).then_some(time)
}

fn job_name(cron_job: &CronJob, time: Timestamp) -> String {
    format!("{}-{}", cron_job.metadata.name.as_deref().unwrap_or_default(), time.as_second().div_euclid(60))
}

impl Controller<'_> {
    fn namespace(&self) -> String {
        self.cron_job.metadata.namespace.clone().unwrap_or_default()
    }

    fn write_status(&mut self, status: Value) {
        let meta = &self.cron_job.metadata;
        let body = json!({ "metadata": { "resourceVersion": meta.resource_version }, "status": status });
        let (namespace, name) = (self.namespace(), meta.name.clone().unwrap_or_default());
        let subresource = Some("status");
        let kind = PatchKind::Update;
        self.plan.push(Op::Patch { resource: CRON_JOBS, namespace, name, subresource, kind, body });
    }

    fn delete(&mut self, status: &mut CronJobStatus, job: &Job) {
        let (namespace, name) = (self.namespace(), name(job).to_owned());
        let done = Note::normal(&self.about, "SuccessfulDelete", format!("Deleted job {name}"));
        let failed = Note::warning(&self.about, "FailedDelete", "Deleted job: {error}");
        let op = Op::Delete { resource: JOBS, namespace, name, uid: job.metadata.uid.clone(), grace: None };
        self.plan.push(Step::from(op).on_success(done).on_failure(failed));
        remove(status, job.metadata.uid.as_ref());
    }

    /// Finished Jobs beyond the limits go, the oldest first.
    fn clean_history(&mut self, status: &mut CronJobStatus) {
        let limits =
            [("Complete", self.spec.successful_jobs_history_limit), ("Failed", self.spec.failed_jobs_history_limit)];
        for (kind, limit) in limits {
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
            let ended = |job: &&Arc<Job>| finished_condition(job).is_some_and(|condition| condition.type_ == kind);
            let mut ended: Vec<Arc<Job>> = self.jobs.iter().filter(ended).cloned().collect();
            ended.sort_by_key(|job| {
                let start = job.status.as_ref().and_then(|status| status.start_time.as_ref());
                (start.is_none(), start.map(|time| time.0), name(job).to_owned())
            });
            let surplus = ended.len().saturating_sub(limit);
            for job in ended.iter().take(surplus).filter(|job| job.metadata.deletion_timestamp.is_none()) {
                self.delete(status, job);
            }
        }
    }

    /// Brings the status up to what the Jobs are.
    fn observe(&mut self, status: &mut CronJobStatus) {
        for job in self.jobs {
            let finished = finished_condition(job);
            if let Some(condition) = finished.filter(|condition| condition.type_ == "Complete") {
                let completed = job.status.as_ref().and_then(|status| status.completion_time.as_ref());
                let completed = completed.or(condition.last_transition_time.as_ref());
                let later = |time: &&Time| status.last_successful_time.as_ref().is_none_or(|last| last.0 < time.0);
                if let Some(time) = completed.filter(later) {
                    status.last_successful_time = Some(time.clone());
                }
            }
            match finished {
                Some(condition) if is_in(status, job) => {
                    let text = format!("Saw completed job: {}, condition: {}", name(job), condition.type_);
                    self.plan.notes.push(Note::normal(&self.about, "SawCompletedJob", text));
                    remove(status, job.metadata.uid.as_ref());
                }
                Some(_) => {}
                None if is_in(status, job) => {}
                None => self.unlisted(status, job),
            }
        }
        self.record_started(status);
        let lost: Vec<ObjectReference> =
            status.active.iter().flatten().filter(|known| !self.exists(known)).cloned().collect();
        for known in lost {
            let text = format!("Active job went missing: {}", known.name.as_deref().unwrap_or_default());
            self.plan.notes.push(Note::normal(&self.about, "MissingJob", text));
            remove(status, known.uid.as_ref());
        }
    }

    fn exists(&self, known: &ObjectReference) -> bool {
        self.jobs.iter().any(|job| job.metadata.uid == known.uid)
    }

    /// A Job that runs and is not in the status: one that somebody made by hand, or one older than what was recorded.
    fn unlisted(&mut self, status: &CronJobStatus, job: &Job) {
        if job.metadata.deletion_timestamp.is_none() && self.newly_started(status, job).is_none() {
            let text = format!("Saw a job that the controller did not create or forgot: {}", name(job));
            self.plan.notes.push(Note::warning(&self.about, "UnexpectedJob", text));
        }
    }

    fn newly_started(&self, status: &CronJobStatus, job: &Job) -> Option<Timestamp> {
        let last = status.last_schedule_time.as_ref().map(|time| time.0);
        scheduled_at(self.cron_job, job).filter(|time| last.is_none_or(|last| last < *time))
    }

    /// Jobs made for times after the last recorded one are active, and the latest of those times is recorded.
    fn record_started(&self, status: &mut CronJobStatus) {
        let started: Vec<(Timestamp, &Arc<Job>)> =
            self.jobs.iter().filter_map(|job| Some((self.newly_started(status, job)?, job))).collect();
        for (time, job) in started {
            if !is_in(status, job) && job.metadata.deletion_timestamp.is_none() {
                status.active.get_or_insert_default().push(reference(JOBS, &job.metadata));
            }
            let last = status.last_schedule_time.as_ref().map(|time| time.0);
            status.last_schedule_time = Some(seconds(last.map_or(time, |last| last.max(time))));
        }
    }

    fn schedule(&mut self, local: &TimeZone, mut status: CronJobStatus) {
        let timetable = match timetable(self.spec, local) {
            Ok(timetable) => timetable,
            Err(unusable) if self.spec.suspend == Some(true) && unusable.reason == "UnparseableSchedule" => return,
            Err(unusable) => {
                self.plan.notes.push(Note::warning(&self.about, unusable.reason, unusable.message));
                return;
            }
        };
        if self.spec.suspend == Some(true) {
            return;
        }
        let Some(again) = wake(&timetable, earliest(self.cron_job, None, self.now), self.now) else {
            let why = "time difference between two schedules is less than 1 second";
            let text = format!("invalid schedule: {} : {why}", self.spec.schedule);
            self.plan.notes.push(Note::warning(&self.about, "InvalidSchedule", text));
            return;
        };
        self.plan.requeue(again);
        let from = earliest(self.cron_job, self.spec.starting_deadline_seconds, self.now);
        let (due, missed) = timetable.missed(from, self.now, MISSED_MAX + 1);
        let Some(due) = due else { return };
        if missed > MISSED_MAX {
            let why = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.plan.notes.push(Note::warning(&self.about, "TooManyMissedTimes", why));
        }
        if self.is_startable(&status, due) {
            self.start(&timetable, &mut status, due);
        }
    }

    fn is_startable(&mut self, status: &CronJobStatus, due: Timestamp) -> bool {
        let late = self.spec.starting_deadline_seconds.and_then(|deadline| {
            due.checked_add(SignedDuration::from_secs(deadline)).ok().filter(|last| *last < self.now)
        });
        if late.is_some() {
            let time = due.strftime("%a, %d %b %Y %H:%M:%S +0000");
            let text = format!("Missed scheduled time to start a job: {time}");
            self.plan.notes.push(Note::warning(&self.about, "MissSchedule", text));
            return false;
        }
        let wanted = job_name(self.cron_job, due);
        let listed = status.active.iter().flatten().any(|known| known.name.as_ref() == Some(&wanted));
        let done = status.last_schedule_time.as_ref().is_some_and(|last| last.0 == due);
        if listed || done || self.jobs.iter().any(|job| name(job) == wanted) {
            return false;
        }
        if self.spec.concurrency_policy.as_deref() == Some("Forbid") && status.active.is_some() {
            let why = "Not starting job because prior execution is running and concurrency policy is Forbid";
            self.plan.notes.push(Note::normal(&self.about, "JobAlreadyActive", why));
            return false;
        }
        true
    }

    fn start(&mut self, timetable: &Timetable, status: &mut CronJobStatus, due: Timestamp) {
        if self.spec.concurrency_policy.as_deref() == Some("Replace") {
            let old = status.clone();
            for job in self.jobs.iter().filter(|job| is_in(&old, job)) {
                self.delete(status, job);
            }
            if let Some(difference) = difference(&old, status) {
                self.write_status(difference);
            }
        }
        let object = self.new_job(timetable, due);
        let create = Op::Create { resource: JOBS, namespace: self.namespace(), object };
        let done = Note::normal(&self.about, "SuccessfulCreate", "Created job {name}");
        let failed = Note::warning(&self.about, "FailedCreate", "Error creating job: {error}");
        self.plan.push(Step::from(create).on_success(done).on_failure(failed));
    }

    fn new_job(&self, timetable: &Timetable, due: Timestamp) -> Value {
        let template = &self.spec.job_template;
        let meta = template.metadata.clone().unwrap_or_default();
        let mut annotations = meta.annotations.unwrap_or_default();
        // The machine's own zone is not shown, only one that the CronJob states.
        let zone = if self.spec.time_zone.is_some() { timetable.zone.clone() } else { TimeZone::UTC };
        annotations.insert(SCHEDULED_AT.to_owned(), rfc3339(due, &zone));
        let metadata = json!({
            "name": job_name(self.cron_job, due),
            "labels": to_value(&meta.labels.unwrap_or_default()),
            "annotations": to_value(&annotations),
            "ownerReferences": [Owner::new(CRON_JOBS, &self.cron_job.metadata, None).reference()],
        });
        json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": to_value(&template.spec) })
    }
}

fn rfc3339(time: Timestamp, zone: &TimeZone) -> String {
    let time = time.to_zoned(zone.clone());
    let form = if time.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    time.strftime(form).to_string()
}

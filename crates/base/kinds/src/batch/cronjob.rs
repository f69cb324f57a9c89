//! batch/v1 CronJob: starts Jobs on a schedule.

use meta::cron::{Schedule, split_zone};
use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::{Value, json};

use super::{V1, job_rules};
use crate::json::{child, ensure, fill, fill_empty, flag, list, set, text};
use crate::kind::{Column, Kind, texts};
use crate::{columns, rules};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["cj"]),
        categories: texts(&["all"]),
        has_status: true,
        has_generation: true,
        columns: columns().into(),
        default,
        prepare_create,
        validate,
        warnings,
        ..Kind::namespaced(V1, "CronJob", "cronjobs")
    }
}

fn columns() -> Vec<Column> {
    vec![
        columns::name(),
        Column::new("Schedule", "string", "When it starts Jobs.", |o, _| text(o, "spec.schedule").into()),
        Column::new("Timezone", "string", "Where the schedule is meant.", |o, _| {
            columns::or_none(text(o, "spec.timeZone"))
        }),
        Column::new("Suspend", "boolean", "Whether it pauses.", |o, _| suspend(o)),
        Column::new("Active", "integer", "Jobs that run now.", |o, _| list(o, "status.active").len().into()),
        Column::new("Last Schedule", "string", "When it last started a Job.", last),
        columns::age(),
        Column::new("Containers", "string", "Names of the containers.", |o, _| {
            columns::containers(pod_spec(o), "name")
        })
        .wide(),
        Column::new("Images", "string", "Images of the containers.", |o, _| columns::containers(pod_spec(o), "image"))
            .wide(),
        Column::new("Selector", "string", "Selects the pods of a Job.", |o, _| {
            columns::selector(&o["spec"]["jobTemplate"]["spec"]["selector"])
        })
        .wide(),
    ]
}

fn pod_spec(object: &Value) -> &Value {
    &object["spec"]["jobTemplate"]["spec"]["template"]["spec"]
}

fn suspend(object: &Value) -> Value {
    match object["spec"]["suspend"].as_bool() {
        Some(true) => "True".into(),
        Some(false) => "False".into(),
        None => "<unset>".into(),
    }
}

fn last(object: &Value, now: i64) -> Value {
    match &object["status"]["lastScheduleTime"] {
        Value::Null => "<none>".into(),
        time => columns::since(time, now),
    }
}

fn default(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    fill_empty(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", false);
    fill(spec, "successfulJobsHistoryLimit", 3);
    fill(spec, "failedJobsHistoryLimit", 1);
    if let Some(template) = child(spec, "jobTemplate") {
        ensure(template, "metadata");
        if let Some(job) = child(template, "spec") {
            super::job::default_job_spec(job);
        }
    }
}

fn prepare_create(object: &mut Value) {
    set(object, "status", json!({}));
}

const POLICIES: [&str; 3] = ["Allow", "Forbid", "Replace"];
/// The name of a Job adds eleven characters, the scheduled minute.
const NAME_BYTES_MAX: usize = 52;
const ZONE_PART_BYTES_MAX: usize = 14;

fn validate(object: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&object["spec"], FieldPath::new("spec"));
    schedule(&mut errors, spec, &path.child("schedule"));
    rules::not_negative(&mut errors, spec, &path, "startingDeadlineSeconds");
    time_zone(&mut errors, spec, &path.child("timeZone"));
    if text(spec, "concurrencyPolicy").is_empty() {
        errors.push(FieldError::required(&path.child("concurrencyPolicy"), ""));
    }
    rules::one_of(&mut errors, spec, &path, "concurrencyPolicy", &POLICIES);
    rules::not_negative(&mut errors, spec, &path, "successfulJobsHistoryLimit");
    rules::not_negative(&mut errors, spec, &path, "failedJobsHistoryLimit");
    let job_path = path.child("jobTemplate").child("spec");
    let job = &spec["jobTemplate"]["spec"];
    job_rules::validate_spec(&mut errors, job, &job_path);
    if !job["selector"].is_null() {
        let why = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(&job_path.child("selector"), job["selector"].clone(), why));
    }
    if flag(job, "manualSelector") {
        errors.push(FieldError::not_supported(&job_path.child("manualSelector"), true, &["nil", "false"]));
    }
    let name = text(object, "metadata.name");
    if name.len() > NAME_BYTES_MAX {
        let path = FieldPath::new("metadata").child("name");
        errors.push(FieldError::invalid(&path, name, "must be no more than 52 characters"));
    }
    errors
}

/// A schedule with a zone of its own is refused: that is what `timeZone` is for.
fn schedule(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let text = text(spec, "schedule");
    if text.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let (zone, fields) = split_zone(text);
    let parsed = match zone.filter(|zone| meta::zones::find(zone).is_none()) {
        Some(zone) => Err(format!("provided bad location {zone}: unknown time zone {zone}")),
        None => Schedule::parse(fields).map(|_| ()),
    };
    if let Err(why) = parsed {
        errors.push(FieldError::invalid(path, text, why));
    }
    if text.contains("TZ") {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid(path, text, why));
    }
}

fn time_zone(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let Some(zone) = spec["timeZone"].as_str() else { return };
    if zone.is_empty() {
        errors.push(FieldError::invalid(path, zone, "timeZone must be nil or non-empty string"));
        return;
    }
    let wrong = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
        let length = (1..=ZONE_PART_BYTES_MAX).contains(&part.len());
        matches!(part, "." | "..") || part.starts_with('-') || !length || !part.bytes().all(allowed)
    };
    let unknown = format!("unknown time zone {zone}");
    if zone.split('/').any(wrong) {
        errors.push(FieldError::invalid(path, zone, unknown));
    } else if zone.eq_ignore_ascii_case("Local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(FieldError::invalid(path, zone, why));
        if zone != "Local" {
            errors.push(FieldError::invalid(path, zone, unknown));
        }
    } else if meta::zones::find(zone).is_none() {
        errors.push(FieldError::invalid(path, zone, unknown));
    }
}

fn warnings(object: &Value) -> Vec<String> {
    let mut warnings = job_rules::name_warnings(object);
    warnings.extend(job_rules::spec_warnings(&object["spec"]["jobTemplate"]["spec"], "spec.jobTemplate.spec"));
    warnings
}

//! batch/v1 CronJob: starts Jobs on a schedule.

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::{Value, json};

use super::V1;
use crate::json::{child, ensure, fill, fill_empty, list, set, text};
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
const NAME_BYTES_MAX: usize = 52;

fn validate(object: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&object["spec"], FieldPath::new("spec"));
    let schedule = text(spec, "schedule");
    let fields = schedule.split_whitespace().collect::<Vec<_>>();
    if schedule.is_empty() {
        errors.push(FieldError::required(&path.child("schedule"), ""));
    } else if fields.len() != 5 && !schedule.starts_with('@') && !schedule.contains("TZ") {
        let why = format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" "));
        errors.push(FieldError::invalid(&path.child("schedule"), schedule, why));
    }
    rules::not_negative(&mut errors, spec, &path, "startingDeadlineSeconds");
    rules::one_of(&mut errors, spec, &path, "concurrencyPolicy", &POLICIES);
    rules::not_negative(&mut errors, spec, &path, "successfulJobsHistoryLimit");
    rules::not_negative(&mut errors, spec, &path, "failedJobsHistoryLimit");
    let template = path.child("jobTemplate").child("spec");
    super::job::validate_job_spec(&mut errors, &spec["jobTemplate"]["spec"], &template);
    let name = text(object, "metadata.name");
    if name.len() > NAME_BYTES_MAX {
        let path = FieldPath::new("metadata").child("name");
        errors.push(FieldError::invalid(&path, name, "must be no more than 52 characters"));
    }
    errors
}

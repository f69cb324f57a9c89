//! batch/v1 CronJob: starts Jobs on a schedule.

use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{child, ensure, fill, fill_empty, list, set, text};
use crate::kind::{Column, Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["cj"]),
        categories: texts(&["all"]),
        has_status: true,
        has_generation: true,
        columns: columns().into(),
        default,
        prepare_create,
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
        Column::new("Last Schedule", "string", "When it last started a Job.", |o, now| last(o, now)),
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

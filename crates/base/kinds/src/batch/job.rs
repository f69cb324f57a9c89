//! batch/v1 Job: runs pods until enough of them succeed.

use meta::time;
use serde_json::{Value, json};

use super::{V1, job_rules, job_status, job_update};
use crate::columns;
use crate::core::default_template;
use crate::json::{child, ensure, fill, fill_empty, flag, has, int, is_empty, items, list, set, text};
use crate::kind::{Column, Kind, SelectableField, texts};

pub fn kind() -> Kind {
    Kind {
        categories: texts(&["all"]),
        has_status: true,
        has_generation: true,
        columns: columns().into(),
        default,
        prepare_create,
        selectable_fields: vec![SelectableField {
            path: "status.successful".into(),
            read: |o| int(o, "status.succeeded").to_string(),
        }]
        .into(),
        validate: job_rules::validate,
        validate_update: job_update::validate,
        validate_status: job_status::validate,
        warnings: job_rules::warnings,
        orphans_dependents: true,
        ..Kind::namespaced(V1, "Job", "jobs")
    }
}

const BACKOFF_LIMIT: i64 = 6;

fn columns() -> Vec<Column> {
    let mut all = vec![
        columns::name(),
        Column::new("Status", "string", "How far it is.", |o, _| status(o).into()),
        Column::new("Completions", "string", "Pods that succeeded, of those wanted.", |o, _| completions(o).into()),
        Column::new("Duration", "string", "How long it has run.", |o, now| duration(o, now).into()),
        columns::age(),
    ];
    all.extend(columns::template());
    all.push(columns::selector_column());
    all
}

fn status(job: &Value) -> &'static str {
    let holds = |kind: &str| {
        list(job, "status.conditions").iter().find(|c| c["type"] == kind).is_some_and(|c| c["status"] == "True")
    };
    match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if has(job, "metadata.deletionTimestamp") => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let succeeded = int(job, "status.succeeded");
    match (job["spec"]["completions"].as_i64(), int(job, "spec.parallelism")) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism @ 2..) => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Value, now: i64) -> String {
    let Some(start) = time::parse_seconds(text(job, "status.startTime")) else { return String::new() };
    let end = time::parse_seconds(text(job, "status.completionTime")).unwrap_or(now);
    time::human_duration(end.saturating_sub(start))
}

fn default(object: &mut Value) {
    if let Some(spec) = child(object, "spec") {
        default_job_spec(spec);
        let fails = has(spec, "podFailurePolicy");
        fill(spec, "podReplacementPolicy", if fails { "Failed" } else { "TerminatingOrFailed" });
        if !has(spec, "completions") && !has(spec, "parallelism") {
            fill(spec, "completions", 1);
        }
        fill(spec, "parallelism", 1);
        let limit = if has(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { BACKOFF_LIMIT };
        fill(spec, "backoffLimit", limit);
        fill(spec, "completionMode", "NonIndexed");
        fill(spec, "suspend", false);
        fill(spec, "manualSelector", false);
    }
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if let Some(metadata) = child(object, "metadata").filter(|_| labels.is_object()) {
        fill_empty(metadata, "labels", labels);
    }
}

/// The defaults that hold in a Job and in a CronJob's template alike.
pub fn default_job_spec(spec: &mut Value) {
    if let Some(template) = child(spec, "template") {
        default_template(template);
    }
    if let Some(policy) = child(spec, "podFailurePolicy") {
        for rule in items(policy, "rules") {
            items(rule, "onPodConditions").for_each(|condition| fill_empty(condition, "status", "True"));
        }
    }
}

/// The selector of a Job is made by the server from its uid, and its pods are labelled to match.
fn prepare_create(job: &mut Value) {
    set(job, "status", json!({}));
    if !flag(job, "spec.manualSelector") {
        select_by_uid(job);
    }
}

fn select_by_uid(job: &mut Value) {
    let (name, uid) = (text(job, "metadata.name").to_owned(), text(job, "metadata.uid").to_owned());
    let generated = [
        ("batch.kubernetes.io/job-name", &name),
        ("job-name", &name),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("controller-uid", &uid),
    ];
    let own_labels = job["metadata"]["labels"].clone();
    // Labels that came from the template follow it.
    let follows = is_empty(&own_labels) || own_labels == job["spec"]["template"]["metadata"]["labels"];
    let Some(spec) = child(job, "spec") else { return };
    if let Some(selector) = ensure(spec, "selector").and_then(|selector| ensure(selector, "matchLabels")) {
        fill(selector, "batch.kubernetes.io/controller-uid", uid.as_str());
    }
    let template = child(spec, "template").and_then(|template| ensure(template, "metadata"));
    let Some(labels) = template.and_then(|metadata| ensure(metadata, "labels")) else { return };
    generated.iter().for_each(|(key, value)| fill(labels, key, value.as_str()));
    let labels = labels.clone();
    if let Some(metadata) = child(job, "metadata").filter(|_| follows) {
        set(metadata, "labels", labels);
    }
}

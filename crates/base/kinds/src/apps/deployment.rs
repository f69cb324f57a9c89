//! apps/v1 Deployment: rolls out ReplicaSets.

use meta::Gvk;
use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::core::default_template;
use crate::json::{child, ensure, fill, fill_empty, int, set};
use crate::kind::{Column, Kind, Subresource, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["deploy"]),
        categories: texts(&["all"]),
        has_status: true,
        has_generation: true,
        subresources: vec![Subresource::speaking(
            "scale",
            Gvk::new("autoscaling", "v1", "Scale"),
            &["get", "patch", "update"],
        )]
        .into(),
        columns: columns().into(),
        default,
        prepare_create,
        ..Kind::namespaced(V1, "Deployment", "deployments")
    }
}

const REVISION_HISTORY: i64 = 10;
const PROGRESS_SECONDS: i64 = 600;

fn columns() -> Vec<Column> {
    let ready = |o: &Value, _| format!("{}/{}", int(o, "status.readyReplicas"), int(o, "spec.replicas")).into();
    let mut all = vec![
        columns::name(),
        Column::new("Ready", "string", "Ready pods, of those wanted.", ready),
        Column::new("Up-to-date", "string", "Pods of the newest template.", |o, _| {
            columns::number(o, "status.updatedReplicas")
        }),
        Column::new("Available", "string", "Pods that have been ready long enough.", |o, _| {
            columns::number(o, "status.availableReplicas")
        }),
        columns::age(),
    ];
    all.extend(columns::template());
    all.push(columns::selector_column());
    all
}

fn default(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", REVISION_HISTORY);
    fill(spec, "progressDeadlineSeconds", PROGRESS_SECONDS);
    if let Some(strategy) = ensure(spec, "strategy") {
        fill_empty(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = ensure(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
    }
    if let Some(template) = child(spec, "template") {
        default_template(template);
    }
}

fn prepare_create(object: &mut Value) {
    set(object, "status", json!({}));
}

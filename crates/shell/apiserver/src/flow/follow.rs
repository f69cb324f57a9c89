//! Follows FlowSchemas and PriorityLevelConfigurations, restores those of every cluster, and says which schemas lead
//! nowhere.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::bootstrap::{self, change};
use crate::changes::Changes;
use crate::engine::Engine;
use crate::verbs::{metadata, update};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";
/// The owner of what is written here.
const WRITER: &str = "api-priority-and-fairness-config-consumer-v1";

/// Takes what is there, then follows until cancelled.
pub fn start(engine: &Arc<Engine>, stop: CancellationToken) {
    take(engine);
    let engine = engine.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow(&engine) => {}
        }
    });
}

async fn follow(engine: &Engine) {
    let mut changes = Changes::new(&engine.cache, [(GROUP, SCHEMAS), (GROUP, LEVELS)]);
    loop {
        let done = settle(engine).await;
        changes.next(done).await;
    }
}

fn objects(engine: &Engine, plural: &str) -> Vec<Value> {
    let snapshot = engine.snapshot(GROUP, plural);
    snapshot.objects.values().filter_map(|object| object.value().ok()).collect()
}

fn take(engine: &Engine) {
    engine.flow.set(&objects(engine, SCHEMAS), &objects(engine, LEVELS));
}

/// Brings the server and the objects up to date; false where a write has to be tried again.
async fn settle(engine: &Engine) -> bool {
    take(engine);
    let mut done = true;
    for wanted in access::flow::defaults::objects() {
        let plural = if wanted["kind"] == "FlowSchema" { SCHEMAS } else { LEVELS };
        if engine.cached(GROUP, plural, "", metadata::text(&wanted, "name")).is_none()
            && let Err(error) = bootstrap::ensure(engine, wanted).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "restoring an object of flow control failed");
            done = false;
        }
    }
    for schema in objects(engine, SCHEMAS) {
        done &= say(engine, &schema).await;
    }
    done
}

/// Says in a schema's status whether its level is there.
async fn say(engine: &Engine, schema: &Value) -> bool {
    let level = schema.pointer("/spec/priorityLevelConfiguration/name").and_then(Value::as_str).unwrap_or_default();
    let found = engine.cached(GROUP, LEVELS, "", level).is_some();
    let (status, reason, end) =
        if found { ("False", "Found", "it exists") } else { ("True", "NotFound", "there is no such object") };
    let joint = if found { "and" } else { "but" };
    let message =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {joint} {end}");
    let condition = |of: &Value| {
        let conditions = of.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().find(|condition| condition["type"] == "Dangling").cloned()
    };
    let is_told =
        |of: &Value| condition(of).is_some_and(|told| told["status"] == status && told["message"] == *message);
    if is_told(schema) {
        return true;
    }
    let name = metadata::text(schema, "name");
    let told = change(engine, (GROUP, "v1", SCHEMAS), name, update::Part::Status, WRITER, |old| {
        let mut new = old.clone();
        if !is_told(old) {
            let now = metadata::now();
            let dangling = json!({"type": "Dangling", "status": status, "reason": reason, "message": message,
                "lastTransitionTime": now});
            let mut conditions =
                old.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
            conditions.retain(|condition| condition["type"] != "Dangling");
            conditions.push(dangling);
            new["status"]["conditions"] = Value::Array(conditions);
        }
        Ok(new)
    });
    match told.await {
        Ok(()) => true,
        Err(error) if error.is(meta::Reason::NotFound) => true,
        Err(error) => {
            tracing::warn!(%error, name, "writing the status of a flow schema failed");
            false
        }
    }
}

//! The end of a definition: its objects are deleted first, and it goes when the last of them is gone.

use futures::{FutureExt, StreamExt};
use meta::ApiResult;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{CLEANUP, conditions, follow, rows};
use crate::bootstrap::system;
use crate::cache::split_key;
use crate::call::Call;
use crate::engine::Engine;
use crate::info::{Query, RequestInfo};
use crate::output::Output;
use crate::registry::Served;
use crate::verbs::delete::{DeleteOptions, delete_one};
use crate::verbs::{metadata, update};

/// Objects deleted at the same time.
const DELETIONS_MAX: usize = 16;

/// Takes a deleted definition one step towards its end; false while objects are left or a write failed.
pub async fn finish(engine: &Engine, definition: &Value, stop: &CancellationToken) -> bool {
    let name = metadata::text(definition, "name");
    let served = rows::rows(definition).into_iter().map(|(_, row)| row).find(Served::is_storage_version);
    let left = match served {
        Some(served) if conditions::is_true(&definition["status"], "Established") => {
            if let Err(error) = delete_all(engine, &served).await {
                tracing::warn!(%error, name, "deleting the objects of a definition failed; trying again");
            }
            let current = engine.cache.wait_current().await.is_ok();
            let left = engine.resource(&served).counts().0;
            if current { left } else { left.max(1) }
        }
        _ => 0,
    };
    if stop.is_cancelled() {
        return false;
    }
    let now = metadata::now();
    let (value, reason, message) = match left {
        0 => ("False", "InstanceDeletionCompleted", "removed all instances"),
        _ => ("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress"),
    };
    let told = follow::change(engine, name, update::Part::Status, |old| {
        let mut new = old.clone();
        conditions::put(&mut new["status"], "Terminating", value, reason, message, &now);
        Ok(new)
    });
    if let Err(error) = told.await {
        return error.is(meta::Reason::NotFound);
    }
    if left > 0 {
        return false;
    }
    let released = follow::change(engine, name, update::Part::Main, |old| {
        let mut new = old.clone();
        let mut finalizers = metadata::finalizers(old);
        finalizers.retain(|finalizer| finalizer != CLEANUP);
        metadata::set_finalizers(&mut new, &finalizers);
        Ok(new)
    });
    released.await.is_ok()
}

async fn delete_all(engine: &Engine, served: &Served) -> ApiResult<()> {
    let snapshot = engine.resource(served).snapshot(engine.cache.reached());
    let keys: Vec<(String, String)> = snapshot
        .objects
        .keys()
        .map(|key| split_key(key))
        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        .collect();
    let deletions = keys.into_iter().map(|key| delete(engine, served, key).boxed());
    let mut results = futures::stream::iter(deletions).buffer_unordered(DELETIONS_MAX);
    while let Some(result) = results.next().await {
        match result {
            Err(error) if !error.is(meta::Reason::NotFound) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

async fn delete(engine: &Engine, served: &Served, (namespace, name): (String, String)) -> ApiResult<()> {
    let info = RequestInfo {
        is_resource: true,
        verb: "delete".to_owned(),
        group: served.kind.group.to_string(),
        version: served.kind.version.to_string(),
        resource: served.kind.plural.to_string(),
        namespace,
        name,
        ..RequestInfo::default()
    };
    let call =
        Call { engine, served, info: &info, query: &Query::default(), user: system(), output: Output::default() };
    delete_one(&call, &DeleteOptions::default()).await.map(drop)
}

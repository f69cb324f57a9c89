//! Follows CustomResourceDefinitions: their status is settled and their rows come and go with them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use meta::{ApiResult, GroupResource};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::conditions::{self, Taken};
use super::{CLEANUP, GROUP, PLURAL, instances, rows};
use crate::bootstrap;
use crate::cache::{Delivery, Filter};
use crate::engine::Engine;
use crate::verbs::{metadata, update};

/// Between a failed write of a status and the next attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Serves the definitions that are there, then follows them until cancelled.
pub fn start(engine: &Arc<Engine>, stop: CancellationToken) {
    let mut follower = Follower { engine: engine.clone(), serving: HashMap::new(), stop: stop.clone() };
    follower.serve_all();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follower.run() => {}
        }
    });
}

struct Follower {
    engine: Arc<Engine>,
    /// What is served, by definition: the resource, and the parts of the definition that rows are made of.
    serving: HashMap<String, (GroupResource, Value)>,
    stop: CancellationToken,
}

fn definitions() -> GroupResource {
    GroupResource::new(GROUP, PLURAL)
}

/// The parts of a definition that its rows depend on; `None` where nothing is served.
fn source(definition: &Value) -> Option<Value> {
    let established = conditions::is_true(&definition["status"], "Established");
    let deleting = definition["metadata"].get("deletionTimestamp").is_some();
    established.then(|| serde_json::json!({"spec": definition["spec"], "deleting": deleting}))
}

impl Follower {
    async fn run(mut self) {
        loop {
            let resource = self.engine.cache.resource(&definitions());
            let (_, mut opened) = resource.snapshot_and_watch(Filter::default(), self.engine.cache.reached());
            let mut again = !self.settle().await;
            loop {
                let next = opened.receiver.recv();
                let delivery = match again {
                    true => match tokio::time::timeout(RETRY_PAUSE, next).await {
                        Ok(delivery) => delivery,
                        Err(_) => Some(Delivery::Progress(0)),
                    },
                    false => next.await,
                };
                // A watcher that was too slow is dropped: everything is read again.
                let Some(_) = delivery else { break };
                while opened.receiver.try_recv().is_ok() {}
                again = !self.settle().await;
            }
            resource.close(&opened.id);
        }
    }

    fn all(&self) -> Vec<Value> {
        let snapshot = self.engine.snapshot(GROUP, PLURAL);
        snapshot.objects.values().filter_map(|object| object.value().ok()).collect()
    }

    /// Brings every definition's status and rows up to date; false where something has to be tried again.
    async fn settle(&mut self) -> bool {
        let mut all = self.all();
        let mut done = true;
        let now = metadata::now();
        for at in 0..all.len() {
            let group = rows::text(&all[at], "/spec/group").to_owned();
            let others = all.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| other);
            let taken = Taken::by(others.filter(|other| rows::text(other, "/spec/group") == group));
            let status = conditions::plan(&all[at], &taken, &now);
            if status != all[at]["status"] {
                all[at]["status"] = status.clone();
                // Rows first: who sees a definition established may use it at once.
                self.serve_all_of(&all);
                done &= self.write_status(&all[at], status).await;
            }
        }
        self.serve_all_of(&all);
        for definition in all.iter().filter(|definition| definition["metadata"].get("deletionTimestamp").is_some()) {
            if metadata::finalizers(definition).iter().any(|finalizer| finalizer == CLEANUP) {
                done &= instances::finish(&self.engine, definition, &self.stop).await;
            }
        }
        done
    }

    async fn write_status(&self, definition: &Value, status: Value) -> bool {
        let written = change(&self.engine, metadata::text(definition, "name"), update::Part::Status, |old| {
            let mut new = old.clone();
            new["status"] = status.clone();
            // Only what this plan was made of may get its result.
            let fresh = old["spec"]["names"] == definition["spec"]["names"];
            if fresh { Ok(new) } else { Ok(old.clone()) }
        });
        match written.await {
            Ok(()) => true,
            Err(error) if error.is(meta::Reason::NotFound) => true,
            Err(error) => {
                tracing::warn!(%error, name = metadata::text(definition, "name"), "settling a definition failed");
                false
            }
        }
    }

    fn serve_all(&mut self) {
        let all = self.all();
        self.serve_all_of(&all);
    }

    /// Puts the rows of all established definitions into the registry where they changed.
    fn serve_all_of(&mut self, all: &[Value]) {
        let mut registry = None;
        let engine = self.engine.clone();
        let mut touched = Vec::new();
        let gone: Vec<String> = self
            .serving
            .keys()
            .filter(|name| !all.iter().any(|one| metadata::text(one, "name") == **name && source(one).is_some()))
            .cloned()
            .collect();
        for name in gone {
            if let Some((resource, _)) = self.serving.remove(&name) {
                registry.get_or_insert_with(|| engine.registry().as_ref().clone()).remove(&resource);
                touched.push(resource);
            }
        }
        for definition in all {
            let Some(source) = source(definition) else { continue };
            let name = metadata::text(definition, "name");
            if self.serving.get(name).is_some_and(|(_, known)| *known == source) {
                continue;
            }
            let resource = rows::resource(definition);
            let registry = registry.get_or_insert_with(|| engine.registry().as_ref().clone());
            registry.remove(&resource);
            for (_, row) in rows::rows(definition).into_iter().filter(|(served, _)| *served) {
                registry.insert(row);
            }
            touched.push(resource.clone());
            self.serving.insert(name.to_owned(), (resource, source));
        }
        let Some(registry) = registry else { return };
        engine.set_registry(registry);
        for resource in touched {
            // Watches encode by the row that they were opened with: their clients come back and get the new one.
            engine.cache.resource(&resource).restart();
        }
    }
}

/// Changes a definition as the server itself.
pub async fn change(
    engine: &Engine,
    name: &str,
    part: update::Part,
    change: impl FnMut(&Value) -> ApiResult<Value>,
) -> ApiResult<()> {
    bootstrap::change(engine, (GROUP, "v1", PLURAL), name, part, "kube-apiserver", change).await
}

//! Follows APIServices: says whether their servers can be reached, and learns what they serve.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::Request;
use http::header::{ACCEPT, HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use meta::{ApiResult, GroupResource, Status};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Extension;
use crate::bootstrap::system;
use crate::cache::{Filter, Opened, ResourceCache};
use crate::call::{Call, WriteOptions};
use crate::custom::put_condition;
use crate::engine::Engine;
use crate::info::{Query, RequestInfo};
use crate::limits::WEBHOOK_ANSWER_BYTES_MAX;
use crate::output::Output;
use crate::registry::Registry;
use crate::verbs::{metadata, update};

const GROUP: &str = "apiregistration.k8s.io";
const PLURAL: &str = "apiservices";
/// Until a server that is not available is looked at again, where no event says that something changed.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Between two looks at a server that is available.
const CHECK_PAUSE: Duration = Duration::from_secs(30);
/// Time for one look.
const CHECK_TIME_MAX: Duration = Duration::from_secs(5);
/// Marks the APIServices that this server makes for what it serves itself.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// The first of the built-in groups.
const TOP_PRIORITY: i64 = 18_000;
const STEP: i64 = 50;

/// The APIServices of what this server serves itself, for its first start.
pub fn local_services(registry: &Registry) -> Vec<Value> {
    let groups = registry.groups().into_iter().enumerate();
    let all = groups.flat_map(|(place, (group, versions))| {
        let priority = (TOP_PRIORITY - STEP * i64::try_from(place).unwrap_or(0)).max(1);
        let count = versions.len();
        let versions = versions.iter().enumerate();
        versions.map(move |(at, version)| {
            json!({"apiVersion": format!("{GROUP}/v1"), "kind": "APIService",
                "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: "onstart"}},
                "spec": {"group": group, "version": version, "groupPriorityMinimum": priority,
                    "versionPriority": (count - at) * 10}})
        })
    });
    all.collect()
}

/// Follows until cancelled.
pub fn start(engine: &Arc<Engine>, stop: CancellationToken) {
    let mut follower = Follower { engine: engine.clone() };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follower.run() => {}
        }
    });
}

struct Follower {
    engine: Arc<Engine>,
}

impl Follower {
    async fn run(&mut self) {
        let services = self.engine.cache.resource(&GroupResource::new(GROUP, PLURAL));
        loop {
            let reached = self.engine.cache.reached();
            let (_, opened) = services.snapshot_and_watch(Filter::default(), reached);
            let mut changes = Watch { resource: services.clone(), opened };
            loop {
                // Opened before the look, so that no change between them is missed.
                let mut network = watch_network(&self.engine);
                let pause = self.settle().await;
                let again = async {
                    match pause {
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => std::future::pending().await,
                    }
                };
                let alive = tokio::select! {
                    delivery = changes.opened.receiver.recv() => delivery.is_some(),
                    () = changed(&mut network) => true,
                    () = again => true,
                };
                // A watcher that was too slow is dropped: everything is read again.
                if !alive {
                    break;
                }
                while changes.opened.receiver.try_recv().is_ok() {}
            }
        }
    }

    /// Looks at every extension; answers when to look again, if there is any.
    async fn settle(&mut self) -> Option<Duration> {
        let engine = &self.engine;
        let before: HashMap<(String, String), Arc<Extension>> =
            engine.aggregation.all().iter().map(|e| ((e.group.clone(), e.version.clone()), e.clone())).collect();
        let snapshot = engine.snapshot(GROUP, PLURAL);
        let described: Vec<Value> = snapshot.objects.values().filter_map(|object| object.value().ok()).collect();
        let described: Vec<Value> = described.into_iter().filter(|api| api["spec"]["service"].is_object()).collect();
        if described.is_empty() {
            engine.aggregation.set(Vec::new());
            return None;
        }
        // Those that are gone or new are known before any is looked at.
        let known = |api: &Value| {
            let text = |key: &str| api["spec"][key].as_str().unwrap_or_default().to_owned();
            let old = before.get(&(text("group"), text("version"))).filter(|old| old.spec == api["spec"]);
            old.cloned().unwrap_or_else(|| Arc::new(Extension::new(&api["spec"], engine.config.front_proxy.as_ref())))
        };
        let mut all: Vec<Arc<Extension>> = described.iter().map(known).collect();
        engine.aggregation.set(all.clone());
        let mut every_one = true;
        for (at, api) in described.iter().enumerate() {
            let checked = check(engine, &all[at]).await;
            let (available, resources, reason, message) = match checked {
                Ok(resources) => (true, resources, "Passed", "all checks passed".to_owned()),
                Err((reason, message)) => (false, all[at].resources.clone(), reason, message),
            };
            every_one &= available;
            let spec = &api["spec"];
            let new = Extension::new(spec, engine.config.front_proxy.as_ref());
            if all[at].available != available || all[at].resources != resources {
                all[at] = Arc::new(Extension { available, resources, ..new });
                engine.aggregation.set(all.clone());
            }
            let name = metadata::text(api, "name");
            if let Err(error) = tell(engine, name, available, reason, &message).await
                && !error.is(meta::Reason::NotFound)
            {
                tracing::warn!(%error, name, "telling whether an API server is available failed");
            }
        }
        Some(if every_one { CHECK_PAUSE } else { RETRY_PAUSE })
    }
}

/// A watch that ends when it is dropped.
struct Watch {
    resource: Arc<ResourceCache>,
    opened: Opened,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.resource.close(&self.opened.id);
    }
}

/// Services and their endpoints in the namespaces where extensions are.
fn watch_network(engine: &Engine) -> Vec<Watch> {
    let extensions = engine.aggregation.all();
    let namespaces: BTreeSet<String> = extensions.iter().map(|extension| extension.namespace.clone()).collect();
    let mut all = Vec::new();
    for namespace in namespaces {
        for (group, plural) in [("", "services"), ("discovery.k8s.io", "endpointslices")] {
            let resource = engine.cache.resource(&GroupResource::new(group, plural));
            let filter = Filter { namespace: Some(namespace.clone()), ..Filter::default() };
            let (_, opened) = resource.snapshot_and_watch(filter, 0);
            all.push(Watch { resource, opened });
        }
    }
    all
}

/// Waits until one of them changed.
async fn changed(watches: &mut [Watch]) {
    if watches.is_empty() {
        return std::future::pending().await;
    }
    let next = watches.iter_mut().map(|watch| watch.opened.receiver.recv().boxed());
    futures::future::select_all(next).await;
}

/// Whether the server answers, and what it serves; otherwise a reason and a message in upstream's words.
async fn check(engine: &Engine, extension: &Extension) -> Result<Vec<Value>, (&'static str, String)> {
    let (name, namespace, port) = (&extension.service, &extension.namespace, extension.port);
    let service = engine.cached("", "services", namespace, name).and_then(|service| service.value().ok());
    let Some(service) = service else {
        return Err(("ServiceNotFound", format!("service/{name} in {namespace:?} is not present")));
    };
    if service["spec"]["type"] == "ClusterIP" {
        let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let found = ports.find(|one| one["port"].as_u64() == Some(u64::from(port)));
        let Some(found) = found else {
            let why = format!("service/{name} in {namespace:?} is not listening on port {port}");
            return Err(("ServicePortError", why));
        };
        let port_name = found["name"].as_str().unwrap_or_default();
        if crate::kubelets::endpoints(&engine.cache, namespace, name, port_name).is_empty() {
            let why = format!(
                "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
            );
            return Err(("MissingEndpoints", why));
        }
    }
    let url = format!("https://{}:{port}/apis/{}/{}", extension.host(), extension.group, extension.version);
    let failed = |why: String| ("FailedDiscoveryCheck", format!("failing or missing response from {url}: {why}"));
    match tokio::time::timeout(CHECK_TIME_MAX, discover(engine, extension)).await {
        Ok(Ok(resources)) => Ok(resources),
        Ok(Err(why)) => Err(failed(why)),
        Err(_) => Err(failed(format!("Get {url:?}: context deadline exceeded"))),
    }
}

async fn discover(engine: &Engine, extension: &Extension) -> Result<Vec<Value>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let path = format!("/apis/{}/{}", extension.group, extension.version);
    let stream = extension.connect(&engine.cache).await?;
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
    tokio::spawn(async move { drop(driver.await) });
    let mut request = Request::get(&path).header(HOST, extension.host()).header(ACCEPT, "application/json");
    if let Some(headers) = request.headers_mut() {
        super::set_user(headers, &aggregator());
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| text(&error))?;
    let response = sender.send_request(request).await.map_err(|error| text(&error))?;
    let code = response.status();
    if !code.is_success() {
        return Err(format!(
            "bad status from https://{}:{}{path}: {}",
            extension.host(),
            extension.port,
            code.as_u16()
        ));
    }
    let body = Limited::new(response.into_body(), WEBHOOK_ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| text(&error))?.to_bytes();
    let list: Value = serde_json::from_slice(&body).map_err(|error| text(&error))?;
    Ok(list["resources"].as_array().cloned().unwrap_or_default())
}

/// Whom extension servers see when they are looked at.
fn aggregator() -> access::User {
    access::User {
        name: "system:kube-aggregator".to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..access::User::default()
    }
}

/// Writes the condition where it says something new.
async fn tell(engine: &Engine, name: &str, available: bool, reason: &str, message: &str) -> ApiResult<()> {
    let registry = engine.registry();
    let served = registry.find(GROUP, "v1", PLURAL).ok_or_else(|| Status::internal("no APIServices"))?;
    let info = RequestInfo {
        is_resource: true,
        verb: "update".to_owned(),
        group: GROUP.to_owned(),
        version: "v1".to_owned(),
        resource: PLURAL.to_owned(),
        name: name.to_owned(),
        subresource: "status".to_owned(),
        user_agent: "kube-apiserver".to_owned(),
        ..RequestInfo::default()
    };
    let (query, now) = (Query::default(), metadata::now());
    let call = Call { engine, served, info: &info, query: &query, user: system(), output: Output::default() };
    let value = if available { "True" } else { "False" };
    let options = WriteOptions::default();
    let told = update::write(&call, &options, update::Part::Status, false, |old| {
        let mut new = old.clone();
        if !new["status"].is_object() {
            new["status"] = json!({});
        }
        put_condition(&mut new["status"], "Available", value, reason, message, &now);
        Ok(new)
    });
    told.await.map(drop)
}

//! The garbage collector: follows the metadata of every deletable resource and applies what the graph decides.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use client::{ApiErrorExt, Change, Informer, InformerConfig, ObjectKey, Queue};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{DeleteParams, GetParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{DynamicObject, PartialObjectMeta, Request};
use reconcile::garbage::{Action, Graph, Member};
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::discovery::{Served, discover};
use crate::runner::{Context, Outcome};

const NAME: &str = "garbage-collector-controller";
/// After a change of what is served, further ones are awaited this long; also the pause after a failed discovery.
const DISCOVERY_PAUSE: Duration = Duration::from_secs(1);
/// How long the first list of one resource is waited for.
const SYNC_MAX: Duration = Duration::from_secs(10);
/// Dependents deleted for one owner in flight at once.
const PARALLEL_DELETES_MAX: usize = 16;

type Partial = PartialObjectMeta<DynamicObject>;

struct Collector {
    client: Client,
    graph: Mutex<Graph>,
    /// Every resource ever followed; members name theirs by index, so entries stay.
    resources: RwLock<Vec<Served>>,
    queue: Queue<ObjectKey>,
}

pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let collector = Arc::new(Collector {
        client: context.hub.client().clone(),
        graph: Mutex::default(),
        resources: RwLock::default(),
        queue: queue.clone(),
    });
    let followed = Arc::new(Notify::new());
    let (monitor, ready) = (collector.clone(), followed.clone());
    let stop = context.stop.clone();
    let inner = context.stop.clone();
    context.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = monitor.follow_all(inner, &ready) => {}
        }
    });
    context.work(NAME, &queue, async move { followed.notified().await }, move |key| {
        let collector = collector.clone();
        async move { collector.decide(&key.name).await }
    });
}

fn key(uid: &str) -> ObjectKey {
    ObjectKey::new("", uid)
}

impl Collector {
    /// Keeps one metadata watch per served resource; custom resources come and go with their definitions.
    async fn follow_all(self: Arc<Self>, stop: CancellationToken, ready: &Notify) {
        let definitions: Informer<()> = Informer::start::<Partial>(
            self.client.clone(),
            InformerConfig::all("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").metadata_only(),
            |_| (),
            &[],
            stop.clone(),
        );
        let mut changes = definitions.changes();
        let mut watches: BTreeMap<Served, (CancellationToken, Informer<Member>)> = BTreeMap::new();
        loop {
            changes.borrow_and_update();
            let complete = match discover(&self.client).await {
                Ok((served, failure)) => {
                    self.adjust(&served, failure.is_some(), &mut watches, &stop);
                    if let Some(failure) = &failure {
                        tracing::debug!(%failure, "garbage collection does not see all resources");
                    }
                    for (_, informer) in watches.values() {
                        // A resource that cannot be listed must not keep all others from being collected.
                        let _ = tokio::time::timeout(SYNC_MAX, informer.synced()).await;
                    }
                    ready.notify_one();
                    failure.is_none()
                }
                Err(error) => {
                    tracing::warn!(%error, "discovery failed, trying again");
                    false
                }
            };
            if complete && changes.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(DISCOVERY_PAUSE).await;
        }
    }

    fn adjust(
        self: &Arc<Self>,
        served: &[Served],
        partial: bool,
        watches: &mut BTreeMap<Served, (CancellationToken, Informer<Member>)>,
        stop: &CancellationToken,
    ) {
        let wanted = |r: &&Served| r.has("list") && r.has("watch") && r.has("delete") && r.plural != "events";
        for resource in served.iter().filter(wanted) {
            if !watches.contains_key(resource) {
                let end = stop.child_token();
                watches.insert(resource.clone(), (end.clone(), self.follow(resource, end)));
            }
        }
        if partial {
            return;
        }
        let gone: Vec<Served> = watches.keys().filter(|known| !served.contains(known)).cloned().collect();
        for resource in gone {
            if let Some((end, informer)) = watches.remove(&resource) {
                end.cancel();
                for object in informer.list() {
                    let woken = self.graph().remove(&object.uid);
                    self.wake(woken);
                }
            }
        }
    }

    fn follow(self: &Arc<Self>, resource: &Served, stop: CancellationToken) -> Informer<Member> {
        let index = {
            let mut resources = self.resources.write().unwrap_or_else(PoisonError::into_inner);
            resources.push(resource.clone());
            resources.len() - 1
        };
        let config = InformerConfig::all(resource.path("")).metadata_only();
        let project = |object: Partial| Member::new(usize::MAX, object.metadata);
        let informer = Informer::start::<Partial>(self.client.clone(), config, project, &[], stop);
        let collector = self.clone();
        informer.subscribe(move |change: &Change<Member>| {
            let mut woken = Vec::new();
            if let Some(old) = &change.old
                && change.new.as_ref().is_none_or(|new| new.uid != old.uid)
            {
                woken.extend(collector.graph().remove(&old.uid));
            }
            if let Some(new) = &change.new {
                let member = Member { resource: index, ..new.view.clone() };
                woken.extend(collector.graph().put(&new.uid, member));
            }
            collector.wake(woken);
        });
        informer
    }

    fn graph(&self) -> std::sync::MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, uids: Vec<String>) {
        for uid in uids {
            self.queue.add(key(&uid));
        }
    }

    async fn decide(&self, uid: &str) -> Outcome {
        let mut verified = HashMap::new();
        loop {
            let action = self.graph().decide(uid, &verified);
            match action {
                Action::Nothing => return Ok(None),
                Action::Verify(owners) => {
                    for owner in owners {
                        verified.insert(owner.uid.clone(), self.exists(uid, &owner).await?);
                    }
                }
                Action::Patch(patches) => {
                    for (target, body) in patches {
                        self.patch(&target, &body).await?;
                    }
                    return Ok(None);
                }
                Action::Delete { propagation } => {
                    let policy = match propagation {
                        "Foreground" => PropagationPolicy::Foreground,
                        "Orphan" => PropagationPolicy::Orphan,
                        _ => PropagationPolicy::Background,
                    };
                    self.delete(uid, policy).await?;
                    return Ok(None);
                }
                Action::DeleteDependents(dependents) => {
                    for chunk in dependents.chunks(PARALLEL_DELETES_MAX) {
                        let deletes = chunk.iter().map(|d| self.delete(d, PropagationPolicy::Foreground));
                        for result in futures::future::join_all(deletes).await {
                            result?;
                        }
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// The path of a member's collection, its name and resourceVersion.
    fn locate(&self, uid: &str) -> Option<(Request, String, String)> {
        let graph = self.graph();
        let member = graph.get(uid)?;
        let resources = self.resources.read().unwrap_or_else(PoisonError::into_inner);
        let path = resources.get(member.resource)?.path(&member.namespace);
        Some((Request::new(path), member.name.clone(), member.resource_version.clone()))
    }

    /// Asks the API itself whether an owner exists: the graph may simply not have seen it yet.
    async fn exists(&self, dependent: &str, owner: &OwnerReference) -> kube::Result<bool> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let resource = {
            let resources = self.resources.read().unwrap_or_else(PoisonError::into_inner);
            resources.iter().rev().find(|r| r.kind == owner.kind && r.group() == group).cloned()
        };
        // A kind that is not served may be served again; nothing may be deleted for it.
        let Some(resource) = resource else { return Ok(true) };
        let namespace = self.graph().get(dependent).map(|member| member.namespace.clone()).unwrap_or_default();
        if resource.namespaced && namespace.is_empty() {
            tracing::debug!(%dependent, owner = %owner.name, "a cluster-scoped object names a namespaced owner");
            return Ok(true);
        }
        let path = resource.path(if resource.namespaced { &namespace } else { "" });
        let request = Request::new(path).get_metadata(&owner.name, &GetParams::default());
        match self.client.request::<Partial>(request.map_err(kube::Error::BuildRequest)?).await {
            Ok(live) => Ok(live.metadata.uid.as_deref() == Some(&owner.uid)),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn patch(&self, uid: &str, body: &Value) -> kube::Result<()> {
        let Some((path, name, _)) = self.locate(uid) else { return Ok(()) };
        let request = path.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(body));
        ignore_gone(self.client.request::<Partial>(request.map_err(kube::Error::BuildRequest)?).await)
    }

    async fn delete(&self, uid: &str, policy: PropagationPolicy) -> kube::Result<()> {
        let Some((path, name, version)) = self.locate(uid) else { return Ok(()) };
        // The decision holds for this state only: an owner may have been added meanwhile.
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: Some(version) };
        let params = DeleteParams {
            preconditions: Some(preconditions),
            propagation_policy: Some(policy),
            ..DeleteParams::default()
        };
        let request = path.delete(&name, &params).map_err(kube::Error::BuildRequest)?;
        ignore_gone(self.client.request::<Value>(request).await)
    }
}

fn ignore_gone<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

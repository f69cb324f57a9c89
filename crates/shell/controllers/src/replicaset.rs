//! ReplicaSets and ReplicationControllers: wakes the set of a changed pod, applies its plan, then writes its status.

use std::collections::HashMap;
use std::sync::Arc;

use client::{ApiErrorExt, Cached, Informer, ObjectKey, Source};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use reconcile::PodView;
use reconcile::conditions::seconds;
use reconcile::plan::{PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, Resource};
use reconcile::replicaset::{Survey, plan, status, survey};

use crate::apply::{ApplyError, Writer};
use crate::pods_of::wake_sets;
use crate::runner::{Context, Outcome};
use crate::sources::{BY_OWNER, ORPHANS, Pods, ReplicaSets, ReplicationControllers};

pub(crate) fn start_replica_sets(context: &Context) {
    start::<ReplicaSets>(context, "replicaset-controller", REPLICA_SETS);
}

pub(crate) fn start_replication_controllers(context: &Context) {
    start::<ReplicationControllers>(context, "replicationcontroller-controller", REPLICATION_CONTROLLERS);
}

struct Controller {
    resource: Resource,
    sets: Informer<Arc<ReplicaSet>>,
    pods: Informer<Arc<PodView>>,
    writer: Writer,
}

fn start<S: Source<View = Arc<ReplicaSet>>>(context: &Context, name: &'static str, resource: Resource) {
    let (sets, pods) = (context.hub.informer::<S>(), context.hub.informer::<Pods>());
    let queue = context.queue();
    let wake = queue.clone();
    sets.subscribe(move |change| {
        if let Some(set) = change.latest() {
            wake.add(set.key.clone());
        }
    });
    wake_sets(&pods, &sets, resource, &queue);
    let writer = context.writer(name).track(PODS, &pods).track(resource, &sets);
    let controller = Arc::new(Controller { resource, sets, pods, writer });
    let caches = controller.clone();
    let ready = async move {
        caches.sets.synced().await;
        caches.pods.synced().await;
    };
    context.work(name, &queue, ready, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(set) = self.sets.get_key(key) else { return Ok(None) };
        let now = seconds(Timestamp::now()).0;
        let seen = self.look(&set, now);
        let wanted = plan(self.resource, &set, || self.owned(&set), &seen, || self.related(&set), now);
        let applied = self.writer.apply(&wanted).await;
        let making = |error: &&ApplyError| error.kind == PODS.kind && ["create", "delete"].contains(&error.verb);
        let failure = applied.as_ref().err().filter(making).map(|error| {
            let reason = if error.verb == "delete" { "FailedDelete" } else { "FailedCreate" };
            (reason, error.source.api_message())
        });
        let terminating = applied.as_ref().is_err_and(|error| error.source.is_namespace_terminating());
        // What was just written is in the cache by now, so the status counts it.
        let again = || self.sets.get_key(key).map(|set| (self.look(&set, now), set));
        let latest = if wanted.is_empty() { Some((seen, set)) } else { again() };
        if let (Some((seen, set)), false) = (latest, terminating) {
            let failure = failure.as_ref().map(|(reason, message)| (*reason, message.as_str()));
            let report = status(self.resource, &set, &seen, failure, now);
            self.writer.apply(&report).await?;
            applied?;
            return Ok(report.requeue_after);
        }
        applied?;
        Ok(None)
    }

    fn look(&self, set: &Cached<Arc<ReplicaSet>>, now: Timestamp) -> Survey {
        let owned = self.pods.by_index(BY_OWNER, &set.uid);
        let orphans = self.pods.by_index(ORPHANS, &set.key.namespace);
        let (owned, orphans) = (owned.iter().map(|pod| &*pod.view), orphans.iter().map(|pod| &*pod.view));
        survey(self.resource, set, owned, orphans, now)
    }

    fn owned(&self, set: &Cached<Arc<ReplicaSet>>) -> Vec<Arc<PodView>> {
        self.pods.by_index(BY_OWNER, &set.uid).iter().map(|pod| pod.view.clone()).collect()
    }

    /// Active pods per node of all sets of this set's owner.
    fn related(&self, set: &Cached<Arc<ReplicaSet>>) -> HashMap<String, usize> {
        let owners = match &set.controller {
            Some(owner) => self.sets.by_index(BY_OWNER, &owner.uid).iter().map(|set| set.uid.clone()).collect(),
            None => vec![set.uid.clone()],
        };
        let mut nodes = HashMap::new();
        for pod in owners.iter().flat_map(|uid| self.pods.by_index(BY_OWNER, uid)) {
            if pod.is_active() {
                *nodes.entry(pod.node.clone()).or_insert(0) += 1;
            }
        }
        nodes
    }
}

//! DaemonSets: wakes the set of a changed pod or revision and every set when a node's labels or taints change, records
//! its template, applies its plan, then writes its status.

use std::sync::{Arc, Mutex, PoisonError};

use client::{Cached, Informer, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::Node;
use reconcile::PodView;
use reconcile::conditions::seconds;
use reconcile::daemonset::{FailedPods, history, on_name_taken, plan, status};
use reconcile::plan::{CONTROLLER_REVISIONS, DAEMON_SETS, PODS};
use reconcile::revisions::Revision;

use crate::apply::Writer;
use crate::pods_of::{candidates, wake_sets};
use crate::revisions::{self, record, wake_owner};
use crate::runner::{Context, Outcome};
use crate::sources::{ControllerRevisions, DaemonSets, Nodes, Pods};

const NAME: &str = "daemon-set-controller";
/// The component that its events name.
const COMPONENT: &str = "daemonset-controller";

struct Controller {
    sets: Informer<Arc<DaemonSet>>,
    pods: Informer<Arc<PodView>>,
    nodes: Informer<Arc<Node>>,
    revisions: Informer<Arc<ControllerRevision>>,
    failed: Mutex<FailedPods>,
    writer: Writer,
    client: kube::Client,
}

pub(crate) fn start(context: &Context) {
    let hub = &context.hub;
    let (sets, pods) = (hub.informer::<DaemonSets>(), hub.informer::<Pods>());
    let (nodes, revisions) = (hub.informer::<Nodes>(), hub.informer::<ControllerRevisions>());
    let queue = context.queue();
    let wake = queue.clone();
    sets.subscribe(move |change| {
        if let Some(set) = change.latest() {
            wake.add(set.key.clone());
        }
    });
    wake_sets(&pods, &sets, DAEMON_SETS, &queue);
    let (wake, known) = (queue.clone(), sets.clone());
    nodes.subscribe(move |change| {
        if change.old.as_ref().map(|node| placing(node)) != change.new.as_ref().map(|node| placing(node)) {
            known.list().iter().for_each(|set| wake.add(set.key.clone()));
        }
    });
    wake_owner(&revisions, &queue, DAEMON_SETS);
    let writer = context.writer(COMPONENT).track(PODS, &pods).track(DAEMON_SETS, &sets);
    let writer = writer.track(CONTROLLER_REVISIONS, &revisions);
    let (client, failed) = (hub.client().clone(), Mutex::default());
    let controller = Arc::new(Controller { sets, pods, nodes, revisions, failed, writer, client });
    let caches = controller.clone();
    let ready = async move {
        caches.sets.synced().await;
        caches.pods.synced().await;
        caches.nodes.synced().await;
        caches.revisions.synced().await;
    };
    context.work(NAME, &queue, ready, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

/// What of a node decides whether a daemon's pod belongs there.
fn placing(node: &Node) -> impl PartialEq + use<> {
    (node.metadata.labels.clone(), node.spec.as_ref().and_then(|spec| spec.taints.clone()))
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(set) = self.sets.get_key(key) else { return Ok(None) };
        let recorded = history(&set, &self.revisions_of(&set), &candidates(&self.pods, &set));
        let collision = |live: &ControllerRevision| on_name_taken(&set, live);
        record(&self.writer, &self.client, (DAEMON_SETS, key), &recorded, collision).await?;
        let now = seconds(Timestamp::now()).0;
        let nodes: Vec<Arc<Node>> = self.nodes.list().iter().map(|node| node.view.clone()).collect();
        let mut wanted = {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            plan(&set, &self.revisions_of(&set), &candidates(&self.pods, &set), &nodes, &mut failed, now)
        };
        let applied = self.writer.apply(&wanted).await;
        // What was just written is in the cache by now, so the status counts it.
        let Some(set) = self.sets.get_key(key) else { return Ok(None) };
        let report = status(&set, &self.revisions_of(&set), &candidates(&self.pods, &set), &nodes, now);
        let reported = self.writer.apply(&report).await;
        applied?;
        reported?;
        if let Some(again) = report.requeue_after {
            wanted.requeue(again);
        }
        Ok(wanted.requeue_after)
    }

    fn revisions_of(&self, set: &Cached<Arc<DaemonSet>>) -> Vec<Revision> {
        revisions::candidates(&self.revisions, &set.uid, &set.key.namespace)
    }
}

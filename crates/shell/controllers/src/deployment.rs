//! Deployments: wakes the Deployment of a changed ReplicaSet, applies its plan, resolves taken names.

use std::sync::Arc;

use client::{ApiErrorExt, Cached, Informer, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use reconcile::PodView;
use reconcile::conditions::seconds;
use reconcile::deployment::{on_name_taken, plan};
use reconcile::ownership::selector_of;
use reconcile::plan::{DEPLOYMENTS, Op, Plan, REPLICA_SETS};

use crate::apply::{ApplyError, Writer, collection};
use crate::runner::{Context, Outcome, ReconcileError};
use crate::sources::{BY_OWNER, Deployments, ORPHANS, Pods, ReplicaSets};

const NAME: &str = "deployment-controller";

struct Controller {
    deployments: Informer<Arc<Deployment>>,
    sets: Informer<Arc<ReplicaSet>>,
    pods: Informer<Arc<PodView>>,
    writer: Writer,
    client: kube::Client,
}

pub(crate) fn start(context: &Context) {
    let hub = &context.hub;
    let (deployments, sets) = (hub.informer::<Deployments>(), hub.informer::<ReplicaSets>());
    let pods = hub.informer::<Pods>();
    let queue = context.queue();
    let wake = queue.clone();
    deployments.subscribe(move |change| {
        if let Some(deployment) = change.latest() {
            wake.add(deployment.key.clone());
        }
    });
    let (wake, known) = (queue.clone(), deployments.clone());
    sets.subscribe(move |change| {
        for set in change.sides() {
            for key in deployments_of(&known, set) {
                wake.add(key);
            }
        }
    });
    // Recreate waits for the last old pod: its removal has to wake the Deployment.
    let (wake, known) = (queue.clone(), sets.clone());
    pods.subscribe(move |change| {
        let Some(owner) = change.old.as_ref().filter(|_| change.new.is_none()).and_then(|pod| pod.controller.as_ref())
        else {
            return;
        };
        let namespace = change.old.as_ref().map(|pod| pod.key.namespace.clone()).unwrap_or_default();
        if let Some(deployment) = known.get(&namespace, &owner.name).and_then(|set| set.controller.clone()) {
            wake.add(ObjectKey::new(namespace, deployment.name));
        }
    });
    let writer = context.writer(NAME).track(DEPLOYMENTS, &deployments).track(REPLICA_SETS, &sets);
    let controller = Arc::new(Controller { deployments, sets, pods, writer, client: hub.client().clone() });
    let caches = controller.clone();
    let ready = async move {
        caches.deployments.synced().await;
        caches.sets.synced().await;
        caches.pods.synced().await;
    };
    context.work(NAME, &queue, ready, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

fn deployments_of(deployments: &Informer<Arc<Deployment>>, set: &Cached<Arc<ReplicaSet>>) -> Vec<ObjectKey> {
    match &set.controller {
        Some(owner) if owner.kind == "Deployment" => vec![ObjectKey::new(&set.key.namespace, &owner.name)],
        Some(_) => Vec::new(),
        None => deployments
            .list_namespace(&set.key.namespace)
            .into_iter()
            .filter(|deployment| {
                let selector = deployment.spec.as_ref().and_then(|spec| selector_of(&spec.selector));
                selector.is_some_and(|selector| selector.matches(&set.metadata.labels))
            })
            .map(|deployment| deployment.key.clone())
            .collect(),
    }
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(deployment) = self.deployments.get_key(key) else { return Ok(None) };
        let owned = self.sets.by_index(BY_OWNER, &deployment.uid);
        let orphans = self.sets.by_index(ORPHANS, &key.namespace);
        let pods: Vec<Arc<PodView>> =
            owned.iter().flat_map(|set| self.pods.by_index(BY_OWNER, &set.uid)).map(|pod| pod.view.clone()).collect();
        let sets: Vec<Arc<ReplicaSet>> = owned.iter().chain(&orphans).map(|set| set.view.clone()).collect();
        let wanted = plan(&deployment, &sets, &pods, seconds(Timestamp::now()).0);
        match self.writer.apply(&wanted).await {
            Ok(()) => Ok(wanted.requeue_after),
            Err(error) if error.verb == "create" && error.source.is_already_exists() => {
                self.name_taken(&deployment, error).await
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn name_taken(&self, deployment: &Deployment, error: ApplyError) -> Outcome {
        let path = collection(REPLICA_SETS, &error.key.namespace);
        let request = path.get(&error.key.name, &kube::api::GetParams::default()).map_err(kube::Error::BuildRequest);
        let live: ReplicaSet = self.client.request(request?).await?;
        let Some(status) = on_name_taken(deployment, &live) else { return Err(ReconcileError::Apply(error)) };
        let mut counted = Plan::default();
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        counted.push(Op::update_status(DEPLOYMENTS, &error.key.namespace, name, status));
        self.writer.apply(&counted).await?;
        Ok(None)
    }
}

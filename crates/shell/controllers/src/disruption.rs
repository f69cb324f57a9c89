//! PodDisruptionBudgets: wakes those that select a changed pod, learns the scales of the pods' controllers.

use std::sync::Arc;

use client::{ApiErrorExt, Cached, Informer, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v1::Scale as ScaleObject;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::Request;
use reconcile::PodView;
use reconcile::conditions::seconds;
use reconcile::disruption::{Scale, is_failed, needs_scale, plan, scale_failed, selects, stale_disruption};
use reconcile::plan::{DISRUPTION_BUDGETS, PODS};

use crate::apply::Writer;
use crate::runner::{Context, Outcome, ReconcileError};
use crate::sources::{Deployments, DisruptionBudgets, Pods, ReplicaSets, ReplicationControllers};

const NAME: &str = "disruption-controller";
const STALE_NAME: &str = "disruption-controller-stale";

struct Controller {
    budgets: Informer<Arc<PodDisruptionBudget>>,
    pods: Informer<Arc<PodView>>,
    deployments: Informer<Arc<Deployment>>,
    sets: Informer<Arc<ReplicaSet>>,
    controllers: Informer<Arc<ReplicaSet>>,
    writer: Writer,
    client: kube::Client,
}

/// Why a scale is not known.
enum Unknown {
    /// For the budget's condition: it will not get better by asking again.
    Why(String),
    Failed(kube::Error),
}

pub(crate) fn start(context: &Context) {
    let (budgets, pods) = (context.hub.informer::<DisruptionBudgets>(), context.hub.informer::<Pods>());
    let queue = context.queue();
    let wake = queue.clone();
    budgets.subscribe(move |change| {
        if let Some(budget) = &change.new {
            wake.add(budget.key.clone());
        }
    });
    let (wake, known) = (queue.clone(), budgets.clone());
    pods.subscribe(move |change| {
        let Some(pod) = change.latest() else { return };
        for budget in known.list_namespace(&pod.key.namespace) {
            if change.sides().any(|pod| selects(&budget, pod)) {
                wake.add(budget.key.clone());
            }
        }
    });
    let sets = context.hub.informer::<ReplicaSets>();
    let (wake, known) = (queue.clone(), budgets.clone());
    sets.subscribe(move |change| {
        let Some(set) = change.new.as_ref().filter(|_| change.old.is_none()) else { return };
        // A pod may be seen before its controller is: what failed for that is tried again.
        for budget in known.list_namespace(&set.key.namespace).iter().filter(|budget| is_failed(budget)) {
            wake.add(budget.key.clone());
        }
    });
    let writer = context.writer("controllermanager").track(DISRUPTION_BUDGETS, &budgets);
    let controller = Arc::new(Controller {
        budgets,
        pods,
        deployments: context.hub.informer::<Deployments>(),
        sets,
        controllers: context.hub.informer::<ReplicationControllers>(),
        writer,
        client: context.hub.client().clone(),
    });
    let caches = controller.clone();
    let ready = async move {
        caches.budgets.synced().await;
        caches.pods.synced().await;
        caches.deployments.synced().await;
        caches.sets.synced().await;
        caches.controllers.synced().await;
    };
    context.work(NAME, &queue, ready, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
    start_stale(context);
}

/// Pods with a promise of disruption that nobody kept.
fn start_stale(context: &Context) {
    let pods = context.hub.informer::<Pods>();
    let queue = context.queue();
    let wake = queue.clone();
    pods.subscribe(move |change| {
        if let Some(pod) = change.new.as_ref().filter(|pod| pod.disruption.is_some()) {
            wake.add(pod.key.clone());
        }
    });
    let writer = Arc::new(context.writer(NAME).track(PODS, &pods));
    let cache = pods.clone();
    let ready = async move { cache.synced().await };
    context.work(STALE_NAME, &queue, ready, move |key| {
        let wanted = pods.get_key(&key).map(|pod| stale_disruption(&pod, Timestamp::now()));
        let writer = writer.clone();
        async move {
            let Some(wanted) = wanted else { return Ok(None) };
            writer.apply(&wanted).await?;
            Ok(wanted.requeue_after)
        }
    });
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(budget) = self.budgets.get_key(key) else { return Ok(None) };
        let pods = self.pods.list_namespace(&key.namespace);
        let pods: Vec<Arc<PodView>> =
            pods.iter().filter(|pod| selects(&budget, pod)).map(|pod| pod.view.clone()).collect();
        let scale = if needs_scale(&budget) { self.scale_of(&pods).await } else { Ok(Scale::default()) };
        let now = seconds(Timestamp::now()).0;
        let wanted = match scale {
            Ok(scale) => plan(&budget, &pods, &scale, now),
            Err(Unknown::Why(why)) => scale_failed(&budget, &why, now),
            Err(Unknown::Failed(error)) => {
                self.writer.apply(&scale_failed(&budget, &error.api_message(), now)).await?;
                return Err(ReconcileError::Read(error));
            }
        };
        self.writer.apply(&wanted).await?;
        Ok(wanted.requeue_after)
    }

    async fn scale_of(&self, pods: &[Arc<PodView>]) -> Result<Scale, Unknown> {
        let mut scale = Scale::default();
        for pod in pods {
            let Some(owner) = pod.controller() else {
                scale.unmanaged = true;
                continue;
            };
            if scale.controllers.contains_key(&owner.uid) {
                continue;
            }
            match self.controller(&pod.namespace, owner).await? {
                Some((uid, replicas)) => scale.controllers.insert(uid, replicas),
                None => return Err(Unknown::Why(format!("found no controllers for pod {:?}", pod.name))),
            };
        }
        Ok(scale)
    }

    /// Uid and replicas of what scales the pods of `owner`: of a ReplicaSet its Deployment.
    async fn controller(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<(String, i32)>, Unknown> {
        let replicas = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        match (group, owner.kind.as_str()) {
            ("", "ReplicationController") => {
                let found = self.controllers.get(namespace, &owner.name).filter(|found| found.uid == owner.uid);
                Ok(found.map(|found| (found.uid.clone(), replicas(&found))))
            }
            ("apps" | "extensions", "ReplicaSet") => {
                let Some(set) = self.sets.get(namespace, &owner.name).filter(|set| set.uid == owner.uid) else {
                    return Ok(None);
                };
                Ok(self.deployment_of(&set).unwrap_or_else(|| Some((set.uid.clone(), replicas(&set)))))
            }
            _ => self.scale_subresource(namespace, owner).await,
        }
    }

    /// `None`: no Deployment controls the ReplicaSet. `Some(None)`: one does, and it is gone.
    fn deployment_of(&self, set: &Cached<Arc<ReplicaSet>>) -> Option<Option<(String, i32)>> {
        let owner = set.controller.as_ref().filter(|owner| owner.kind == "Deployment")?;
        let found = self.deployments.get(&set.key.namespace, &owner.name).filter(|found| found.uid == owner.uid);
        Some(found.map(|found| (found.uid.clone(), found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1))))
    }

    /// What any other kind says of itself through its `scale`.
    async fn scale_subresource(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Option<(String, i32)>, Unknown> {
        let resources = if owner.api_version.contains('/') {
            self.client.list_api_group_resources(&owner.api_version).await
        } else {
            self.client.list_core_api_resources(&owner.api_version).await
        };
        let unknown_kind = || format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version);
        let resources = match resources {
            Ok(list) => list.resources,
            Err(error) if error.is_not_found() => return Err(Unknown::Why(unknown_kind())),
            Err(error) => return Err(Unknown::Failed(error)),
        };
        let plural = resources.iter().find(|found| found.kind == owner.kind && !found.name.contains('/'));
        let Some(plural) = plural.map(|found| &found.name) else { return Err(Unknown::Why(unknown_kind())) };
        if !resources.iter().any(|found| found.name == format!("{plural}/scale")) {
            let resource = match owner.api_version.split_once('/') {
                Some((group, _)) => format!("{plural}.{group}"),
                None => plural.clone(),
            };
            return Err(Unknown::Why(format!("{resource} does not implement the scale subresource")));
        }
        let root = if owner.api_version.contains('/') { "/apis" } else { "/api" };
        let path = Request::new(format!("{root}/{}/namespaces/{namespace}/{plural}", owner.api_version));
        let read = path.get_subresource("scale", &owner.name);
        let read = read.map_err(|error| Unknown::Failed(kube::Error::BuildRequest(error)))?;
        match self.client.request::<ScaleObject>(read).await {
            Ok(scale) if scale.metadata.uid.as_ref() == Some(&owner.uid) => {
                let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
                Ok(Some((owner.uid.clone(), replicas)))
            }
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(Unknown::Failed(error)),
        }
    }
}

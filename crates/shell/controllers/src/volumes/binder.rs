//! Binds claims and volumes: each side has its keys, and each wakes the other.

use std::sync::Arc;

use client::{Informer, ObjectKey, Queue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use reconcile::PodView;
use reconcile::plan::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES};
use reconcile::volume::{BIND_COMPLETED, claim, persistent};

use super::{BY_CLAIM, Classes, Volumes, WholeClaims};
use crate::apply::Writer;
use crate::runner::{Context, Outcome};
use crate::sources::Pods;

const NAME: &str = "persistentvolume-controller";

struct Controller {
    claims: Informer<Arc<PersistentVolumeClaim>>,
    volumes: Informer<Arc<PersistentVolume>>,
    classes: Informer<Arc<StorageClass>>,
    pods: Informer<Arc<PodView>>,
    client: kube::Client,
    writer: Writer,
}

pub(crate) fn start(context: &Context) {
    let hub = &context.hub;
    let (claims, volumes) = (hub.informer::<WholeClaims>(), hub.informer::<Volumes>());
    let (classes, pods) = (hub.informer::<Classes>(), hub.informer::<Pods>());
    let (claim_queue, volume_queue) = (context.queue(), context.queue());
    wake(&claims, &volumes, &classes, &claim_queue, &volume_queue);
    let writer = context.writer(NAME).track(PERSISTENT_VOLUME_CLAIMS, &claims).track(PERSISTENT_VOLUMES, &volumes);
    let client = hub.client().clone();
    let controller = Arc::new(Controller { claims, volumes, classes, pods, client, writer });
    let ready = |controller: Arc<Controller>| async move {
        tokio::join!(controller.claims.synced(), controller.volumes.synced(), controller.classes.synced());
        controller.pods.synced().await;
    };
    let of_claims = controller.clone();
    context.work("persistentvolume-binder-controller", &claim_queue, ready(controller.clone()), move |key| {
        let controller = of_claims.clone();
        async move { controller.claim(&key).await }
    });
    context.work("persistentvolume-phase-controller", &volume_queue, ready(controller.clone()), move |key| {
        let controller = controller.clone();
        async move { controller.volume(&key).await }
    });
}

fn volume_key(name: &str) -> ObjectKey {
    ObjectKey::new("", name)
}

fn is_unbound(claim: &PersistentVolumeClaim) -> bool {
    !claim.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(BIND_COMPLETED))
}

fn wake(
    claims: &Informer<Arc<PersistentVolumeClaim>>,
    volumes: &Informer<Arc<PersistentVolume>>,
    classes: &Informer<Arc<StorageClass>>,
    claim_queue: &Queue<ObjectKey>,
    volume_queue: &Queue<ObjectKey>,
) {
    let (own, other, known) = (claim_queue.clone(), volume_queue.clone(), volumes.clone());
    claims.subscribe(move |change| {
        let Some(claim) = change.latest() else { return };
        if change.new.is_some() {
            own.add(claim.key.clone());
        }
        let reserved = known.by_index(BY_CLAIM, &format!("{}/{}", claim.key.namespace, claim.key.name));
        reserved.iter().for_each(|volume| other.add(volume.key.clone()));
        for name in change.sides().flat_map(|side| super::volume_of(side)) {
            other.add(volume_key(&name));
        }
    });
    let (own, other, known) = (volume_queue.clone(), claim_queue.clone(), claims.clone());
    volumes.subscribe(move |change| {
        let Some(volume) = change.latest() else { return };
        if change.new.is_some() {
            own.add(volume.key.clone());
        }
        for claim in known.by_index(super::BY_VOLUME, &volume.key.name) {
            other.add(claim.key.clone());
        }
        let reserved: Vec<String> = change.sides().flat_map(|side| super::claim_of(side)).collect();
        for (namespace, name) in reserved.iter().filter_map(|key| key.split_once('/')) {
            other.add(ObjectKey::new(namespace, name));
        }
        // A free volume may be what somebody waits for.
        if change.new.as_ref().is_some_and(|volume| super::claim_of(volume).is_empty()) {
            known.list().iter().filter(|claim| is_unbound(claim)).for_each(|claim| other.add(claim.key.clone()));
        }
    });
    let (other, known) = (claim_queue.clone(), claims.clone());
    classes.subscribe(move |_| {
        known.list().iter().filter(|claim| is_unbound(claim)).for_each(|claim| other.add(claim.key.clone()));
    });
}

impl Controller {
    async fn claim(&self, key: &ObjectKey) -> Outcome {
        let Some(own) = self.claims.get_key(key) else { return Ok(None) };
        let (volumes, classes) = (self.volumes.list(), self.classes.list());
        let pods = self.pods.list_namespace(&key.namespace);
        let uses = |pod: &PodView| pod.node.is_empty() && pod.claims.iter().any(|(_, claim)| *claim == key.name);
        let view = claim::View {
            claim: &own,
            volumes: volumes.iter().map(|volume| &*volume.view).collect(),
            classes: classes.iter().map(|class| &*class.view).collect(),
            waiting_pods: pods.iter().filter(|pod| uses(pod)).map(|pod| pod.name.clone()).collect(),
        };
        self.writer.apply(&claim::plan(&view)).await?;
        Ok(None)
    }

    async fn volume(&self, key: &ObjectKey) -> Outcome {
        let Some(volume) = self.volumes.get_key(key) else { return Ok(None) };
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone()).unwrap_or_default();
        let (namespace, name) = (reference.namespace.unwrap_or_default(), reference.name.unwrap_or_default());
        let cached = self.claims.get(&namespace, &name).map(|claim| claim.view.clone());
        let is_same = cached.as_ref().is_some_and(|claim| claim.metadata.uid == reference.uid);
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let claim = if name.is_empty() || is_same || matches!(phase, Some("Released" | "Failed")) {
            cached
        } else {
            // The cache may lag: a volume must not be given up while its claim lives.
            let live: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
            live.get_opt(&name).await?.map(Arc::new)
        };
        self.writer.apply(&persistent::plan(&volume, claim.as_deref())).await?;
        Ok(None)
    }
}

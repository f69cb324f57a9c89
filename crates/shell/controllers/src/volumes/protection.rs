//! Holds the protection finalizers of claims and volumes, and lets them go when nobody uses them.

use std::sync::Arc;

use client::{Informer, ObjectKey};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::ListParams;
use reconcile::PodView;
use reconcile::plan::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES};
use reconcile::volume::{CLAIM_PROTECTION, ephemeral, protection};

use super::{Volumes, WholeClaims};
use crate::apply::Writer;
use crate::runner::{Context, Outcome};
use crate::sources::Pods;

const CLAIMS: &str = "persistentvolumeclaim-protection-controller";
const VOLUMES: &str = "persistentvolume-protection-controller";

struct Claims {
    claims: Informer<Arc<PersistentVolumeClaim>>,
    pods: Informer<Arc<PodView>>,
    client: kube::Client,
    writer: Writer,
}

pub(crate) fn start_claims(context: &Context) {
    let hub = &context.hub;
    let (claims, pods) = (hub.informer::<WholeClaims>(), hub.informer::<Pods>());
    let queue = context.queue();
    let wake = queue.clone();
    claims.subscribe(move |change| {
        let Some(claim) = &change.new else { return };
        let has = claim.metadata.finalizers.iter().flatten().any(|known| known == CLAIM_PROTECTION);
        if has == claim.deleting {
            wake.add(claim.key.clone());
        }
    });
    let (wake, known) = (queue.clone(), claims.clone());
    pods.subscribe(move |change| {
        // Only the end of a pod can set a claim free.
        let Some(pod) = change.latest() else { return };
        if change.new.as_ref().is_some_and(|pod| !pod.shut_down && !pod.is_finished()) {
            return;
        }
        for key in keys(pod) {
            if known.get_key(&key).is_some_and(|claim| claim.deleting) {
                wake.add(key);
            }
        }
    });
    let writer = context.writer(CLAIMS).track(PERSISTENT_VOLUME_CLAIMS, &claims);
    let controller = Arc::new(Claims { claims, pods, client: hub.client().clone(), writer });
    let caches = controller.clone();
    let ready = async move {
        tokio::join!(caches.claims.synced(), caches.pods.synced());
    };
    context.work(CLAIMS, &queue, ready, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

/// The claims of a pod.
fn keys(pod: &PodView) -> Vec<ObjectKey> {
    let named = pod.claims.iter().map(|(_, claim)| claim.clone());
    let own = pod.ephemeral.iter().map(|(volume, _)| ephemeral::claim_name(&pod.name, volume));
    named.chain(own).map(|claim| ObjectKey::new(pod.namespace.as_str(), claim)).collect()
}

impl Claims {
    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(claim) = self.claims.get_key(key) else { return Ok(None) };
        let used = if claim.deleting { self.is_used(&claim).await? } else { true };
        self.writer.apply(&protection::claim(&claim, used)).await?;
        Ok(None)
    }

    /// The cache may miss a pod that was just bound, so the API is asked before a claim is let go.
    async fn is_used(&self, claim: &PersistentVolumeClaim) -> kube::Result<bool> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        if self.pods.list_namespace(namespace).iter().any(|pod| protection::uses(pod, claim)) {
            return Ok(true);
        }
        let live: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pods = live.list(&ListParams::default()).await?;
        Ok(pods.items.into_iter().any(|pod| protection::uses(&PodView::from_pod(pod), claim)))
    }
}

pub(crate) fn start_volumes(context: &Context) {
    let volumes = context.hub.informer::<Volumes>();
    let queue = context.queue();
    let wake = queue.clone();
    volumes.subscribe(move |change| {
        if let Some(volume) = &change.new {
            wake.add(volume.key.clone());
        }
    });
    let writer = Arc::new(context.writer(VOLUMES).track(PERSISTENT_VOLUMES, &volumes));
    let cache = volumes.clone();
    context.work(VOLUMES, &queue, async move { cache.synced().await }, move |key| {
        let (volume, writer) = (volumes.get_key(&key), writer.clone());
        async move {
            if let Some(volume) = volume {
                writer.apply(&protection::volume(&volume)).await?;
            }
            Ok(None)
        }
    });
}

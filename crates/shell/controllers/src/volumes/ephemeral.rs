//! Makes the claims of generic ephemeral volumes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use reconcile::plan::PERSISTENT_VOLUME_CLAIMS;
use reconcile::volume::ephemeral;

use super::WholeClaims;
use crate::runner::Context;
use crate::sources::Pods;

const NAME: &str = "ephemeral-volume-controller";

pub(crate) fn start(context: &Context) {
    let hub = &context.hub;
    let (claims, pods) = (hub.informer::<WholeClaims>(), hub.informer::<Pods>());
    let queue = context.queue();
    let wake = queue.clone();
    pods.subscribe(move |change| {
        if let Some(pod) = change.new.as_ref().filter(|pod| !pod.ephemeral.is_empty() && pod.deletion.is_none()) {
            wake.add(pod.key.clone());
        }
    });
    let (wake, known) = (queue.clone(), pods.clone());
    claims.subscribe(move |change| {
        // A claim that went too early is made again; one that was in the way is gone.
        let Some(claim) = change.old.as_ref().filter(|_| change.new.is_none()) else { return };
        for pod in known.list_namespace(&claim.key.namespace) {
            let of = |(volume, _): &(String, _)| ephemeral::claim_name(&pod.name, volume) == claim.key.name;
            if pod.ephemeral.iter().any(of) {
                wake.add(pod.key.clone());
            }
        }
    });
    let writer = Arc::new(context.writer(NAME).track(PERSISTENT_VOLUME_CLAIMS, &claims));
    let caches = (pods.clone(), claims.clone());
    let ready = async move {
        tokio::join!(caches.0.synced(), caches.1.synced());
    };
    context.work(NAME, &queue, ready, move |key| {
        let (pod, writer, claims) = (pods.get_key(&key), writer.clone(), claims.clone());
        async move {
            let Some(pod) = pod else { return Ok(None) };
            let existing: Vec<Arc<PersistentVolumeClaim>> =
                claims.list_namespace(&key.namespace).iter().map(|claim| claim.view.clone()).collect();
            let find = |name: &str| {
                existing.iter().find(|claim| claim.metadata.name.as_deref() == Some(name)).map(|claim| &**claim)
            };
            writer.apply(&ephemeral::plan(&pod, find)).await?;
            Ok(None)
        }
    });
}

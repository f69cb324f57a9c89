//! StatefulSets: wakes the set of a changed pod, claim or revision, records its template, applies its plan, then writes
//! its status.

use std::sync::Arc;

use client::{Cached, Informer, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use reconcile::PodView;
use reconcile::conditions::seconds;
use reconcile::plan::{CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS};
use reconcile::revisions::Revision;
use reconcile::statefulset::{ClaimView, history, on_name_taken, plan, status};

use crate::apply::Writer;
use crate::pods_of::{candidates, wake_sets};
use crate::revisions::{self, record, wake_owner};
use crate::runner::{Context, Outcome};
use crate::sources::{Claims, ControllerRevisions, Pods, StatefulSets};

const NAME: &str = "statefulset-controller";

struct Controller {
    sets: Informer<Arc<StatefulSet>>,
    pods: Informer<Arc<PodView>>,
    claims: Informer<Arc<ClaimView>>,
    revisions: Informer<Arc<ControllerRevision>>,
    writer: Writer,
    client: kube::Client,
}

pub(crate) fn start(context: &Context) {
    let hub = &context.hub;
    let (sets, pods) = (hub.informer::<StatefulSets>(), hub.informer::<Pods>());
    let (claims, revisions) = (hub.informer::<Claims>(), hub.informer::<ControllerRevisions>());
    let queue = context.queue();
    let wake = queue.clone();
    sets.subscribe(move |change| {
        if let Some(set) = change.latest() {
            wake.add(set.key.clone());
        }
    });
    wake_sets(&pods, &sets, STATEFUL_SETS, &queue);
    let (wake, known) = (queue.clone(), sets.clone());
    claims.subscribe(move |change| {
        // A pod may wait for a claim to go, and a claim that goes too early is made again.
        let gone = change.new.as_ref().is_none_or(|claim| claim.deleting);
        if let Some(claim) = change.latest().filter(|_| gone) {
            for set in known.list_namespace(&claim.key.namespace).iter().filter(|set| claims_of(set, &claim.key.name)) {
                wake.add(set.key.clone());
            }
        }
    });
    wake_owner(&revisions, &queue, STATEFUL_SETS);
    let writer = context.writer(NAME).track(PODS, &pods).track(STATEFUL_SETS, &sets);
    let writer = writer.track(PERSISTENT_VOLUME_CLAIMS, &claims).track(CONTROLLER_REVISIONS, &revisions);
    let client = hub.client().clone();
    let controller = Arc::new(Controller { sets, pods, claims, revisions, writer, client });
    let caches = controller.clone();
    let ready = async move {
        caches.sets.synced().await;
        caches.pods.synced().await;
        caches.claims.synced().await;
        caches.revisions.synced().await;
    };
    context.work(NAME, &queue, ready, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

/// Whether a claim's name is `TEMPLATE-SET-ORDINAL` of this set.
fn claims_of(set: &Cached<Arc<StatefulSet>>, claim: &str) -> bool {
    let templates = set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_ref());
    templates.into_iter().flatten().any(|template| {
        let name = template.metadata.name.as_deref().unwrap_or_default();
        claim.strip_prefix(name).is_some_and(|rest| rest.starts_with(&format!("-{}-", set.key.name)))
    })
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(set) = self.sets.get_key(key) else { return Ok(None) };
        let recorded = history(&set, &self.revisions_of(&set));
        let collision = |live: &ControllerRevision| on_name_taken(&set, live);
        record(&self.writer, &self.client, (STATEFUL_SETS, key), &recorded, collision).await?;
        let now = seconds(Timestamp::now()).0;
        let claims: Vec<Arc<ClaimView>> = match set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_ref())
        {
            Some(templates) if !templates.is_empty() => {
                self.claims.list_namespace(&key.namespace).iter().map(|claim| claim.view.clone()).collect()
            }
            _ => Vec::new(),
        };
        let wanted = plan(&set, &self.revisions_of(&set), &candidates(&self.pods, &set), &claims, now);
        let applied = self.writer.apply(&wanted).await;
        // What was just written is in the cache by now, so the status counts it.
        let Some(set) = self.sets.get_key(key) else { return Ok(None) };
        let report = status(&set, &self.revisions_of(&set), &candidates(&self.pods, &set), now);
        let reported = self.writer.apply(&report).await;
        applied?;
        reported?;
        Ok(report.requeue_after)
    }

    fn revisions_of(&self, set: &Cached<Arc<StatefulSet>>) -> Vec<Revision> {
        revisions::candidates(&self.revisions, &set.uid, &set.key.namespace)
    }
}

//! What StatefulSets and DaemonSets do alike about their revisions: waking their set, resolving taken names.

use std::sync::Arc;

use client::{ApiErrorExt, Informer, ObjectKey, Queue};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::api::GetParams;
use reconcile::plan::{CONTROLLER_REVISIONS, Op, Plan, Resource};
use reconcile::revisions::Revision;
use serde_json::Value;

use crate::apply::{Writer, collection};
use crate::runner::ReconcileError;
use crate::sources::{BY_OWNER, ORPHANS};

/// A revision that changes or goes wakes the set that owns it. A new one does not: it is the set's own, or comes from
/// somebody who is not done yet.
pub(crate) fn wake_owner(informer: &Informer<Arc<ControllerRevision>>, queue: &Queue<ObjectKey>, resource: Resource) {
    let wake = queue.clone();
    informer.subscribe(move |change| {
        let Some(old) = &change.old else { return };
        for revision in [Some(old), change.new.as_ref()].into_iter().flatten() {
            if let Some(owner) = revision.controller.as_ref().filter(|owner| owner.kind == resource.kind) {
                wake.add(ObjectKey::new(&revision.key.namespace, &owner.name));
            }
        }
    });
}

/// The revisions of a set, and those of its namespace that nobody controls.
pub(crate) fn candidates(informer: &Informer<Arc<ControllerRevision>>, uid: &str, namespace: &str) -> Vec<Revision> {
    let (owned, orphans) = (informer.by_index(BY_OWNER, uid), informer.by_index(ORPHANS, namespace));
    owned.iter().chain(&orphans).map(|revision| revision.view.clone()).collect()
}

/// Records what `history` says. When the name of a new revision is taken, `collision` reads the live one and tells the
/// status to write, if any; then the key is tried again.
pub(crate) async fn record(
    writer: &Writer,
    client: &kube::Client,
    (resource, key): (Resource, &ObjectKey),
    history: &Plan,
    collision: impl Fn(&ControllerRevision) -> Option<Value>,
) -> Result<(), ReconcileError> {
    let Err(error) = writer.apply(history).await else { return Ok(()) };
    let taken = error.verb == "create" && error.kind == CONTROLLER_REVISIONS.kind && error.source.is_already_exists();
    if !taken {
        return Err(error.into());
    }
    let path = collection(CONTROLLER_REVISIONS, &error.key.namespace);
    let request = path.get(&error.key.name, &GetParams::default()).map_err(kube::Error::BuildRequest);
    let live: ControllerRevision = client.request(request?).await?;
    if let Some(status) = collision(&live) {
        let mut counted = Plan::default();
        counted.push(Op::update_status(resource, &key.namespace, &key.name, status));
        writer.apply(&counted).await?;
    }
    Err(error.into())
}

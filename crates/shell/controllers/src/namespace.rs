//! Empties a namespace that is being deleted: pods first, then everything else, then its finalizer.

use std::sync::Arc;
use std::time::Duration;

use client::{ApiErrorExt, Informer, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{DeleteParams, ListParams, ObjectList, PostParams};
use kube::core::{DynamicObject, PartialObjectMeta, Request};
use reconcile::namespace::{FINALIZER, Report, arrivals_end_in, is_pending, status};
use reconcile::plan::{NAMESPACES, Op, Plan};
use serde_json::Value;

use crate::apply::Writer;
use crate::discovery::{Served, discover};
use crate::runner::{Context, Outcome};

const NAME: &str = "namespace-controller";
/// Between passes while content is still going.
const PASS_EVERY: Duration = Duration::from_secs(1);

struct Controller {
    client: Client,
    namespaces: Informer<Namespace>,
    writer: Writer,
}

pub(crate) fn start(context: &Context) {
    let namespaces = context.hub.whole::<Namespace>();
    let queue = context.queue();
    let wake = queue.clone();
    namespaces.subscribe(move |change| {
        if let Some(namespace) = change.new.as_ref().filter(|namespace| namespace.deleting) {
            wake.add(namespace.key.clone());
        }
    });
    let writer = context.writer(NAME).track(NAMESPACES, &namespaces);
    let controller = Arc::new(Controller { client: context.hub.client().clone(), namespaces, writer });
    let synced = controller.namespaces.clone();
    context.work(NAME, &queue, async move { synced.synced().await }, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(namespace) = self.namespaces.get_key(key).filter(|namespace| is_pending(namespace)) else {
            return Ok(None);
        };
        let arrivals = arrivals_end_in(&namespace, Timestamp::now());
        let report = self.pass(&key.name).await?;
        if report.is_done() && arrivals.is_some() {
            return Ok(arrivals);
        }
        if report.is_done() {
            self.finalize(&namespace).await?;
            return Ok(None);
        }
        if let Some(status) = status(&namespace, &report, Timestamp::now()) {
            let mut plan = Plan::default();
            plan.push(Op::update_status(NAMESPACES, "", &key.name, status));
            self.writer.apply(&plan).await?;
        }
        Ok(Some(PASS_EVERY))
    }

    async fn pass(&self, namespace: &str) -> kube::Result<Report> {
        let mut report = Report::default();
        let (served, failure) = discover(&self.client).await?;
        report.discovery_failure = failure;
        let content = served.into_iter().filter(|resource| resource.namespaced && resource.has("delete"));
        let (pods, others): (Vec<Served>, Vec<Served>) =
            content.filter(|r| r.has("list")).partition(|r| r.plural == "pods" && r.group().is_empty());
        for resource in &pods {
            self.empty(resource, namespace, &mut report).await;
        }
        if report.may_go_on() {
            for resource in &others {
                self.empty(resource, namespace, &mut report).await;
            }
        }
        Ok(report)
    }

    /// Deletes one collection and notes what is left of it.
    async fn empty(&self, resource: &Served, namespace: &str, report: &mut Report) {
        if let Err(error) = self.try_empty(resource, namespace, report).await
            && !error.is_not_found()
            && !error.is_method_not_supported()
        {
            report.content_failures.push(error.api_message());
        }
    }

    async fn try_empty(&self, resource: &Served, namespace: &str, report: &mut Report) -> kube::Result<()> {
        let path = Request::new(resource.path(namespace));
        let before = self.list(&path).await?;
        if before.is_empty() {
            return Ok(());
        }
        let params = DeleteParams::background();
        let fresh = before.iter().filter(|object| object.metadata.deletion_timestamp.is_none()).count();
        if fresh > 0 && resource.has("deletecollection") {
            let request = path.delete_collection(&params, &ListParams::default());
            let _: Value = self.client.request(request.map_err(kube::Error::BuildRequest)?).await?;
        } else if fresh > 0 {
            for object in before.iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
                let request = path.delete(object.metadata.name.as_deref().unwrap_or_default(), &params);
                let _: Value = self.client.request(request.map_err(kube::Error::BuildRequest)?).await?;
            }
        }
        let left = self.list(&path).await?;
        let name = format!("{}.{}", resource.plural, resource.group());
        report.note(name, &resource.gvr(), namespace, left.iter().map(|object| &object.metadata));
        Ok(())
    }

    async fn list(&self, path: &Request) -> kube::Result<Vec<PartialObjectMeta<DynamicObject>>> {
        let request = path.list_metadata(&ListParams::default()).map_err(kube::Error::BuildRequest)?;
        let list: ObjectList<PartialObjectMeta<DynamicObject>> = self.client.request(request).await?;
        Ok(list.items)
    }

    async fn finalize(&self, namespace: &Namespace) -> kube::Result<()> {
        let mut finalized = namespace.clone();
        if let Some(finalizers) = finalized.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let body = serde_json::to_vec(&finalized).map_err(kube::Error::SerdeError)?;
        let request =
            Request::new("/api/v1/namespaces").replace_subresource("finalize", name, &PostParams::default(), body);
        match self.client.request::<Value>(request.map_err(kube::Error::BuildRequest)?).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

//! EndpointSlices, Endpoints and mirrored slices: three controllers that wake by Service.

use std::sync::Arc;

use client::{Cached, Change, Hub, Informer, ObjectKey, Queue};
use k8s_openapi::api::core::v1::{Endpoints, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use reconcile::PodView;
use reconcile::endpoint_slice::{CONTROLLER, MANAGED_BY, SERVICE_NAME};
use reconcile::endpoints::MIRROR;
use reconcile::plan::{ENDPOINT_SLICES, ENDPOINTS};
use reconcile::topology;

use crate::runner::Context;
use crate::sources::{BY_SERVICE, EndpointSlices, EndpointsObjects, Nodes, Pods, Services};

/// Wakes the Services whose endpoints a pod is, was, or may become.
fn wake_by_pods(queue: &Queue<ObjectKey>, services: &Informer<Arc<Service>>, pods: &Informer<Arc<PodView>>) {
    let (queue, services) = (queue.clone(), services.clone());
    pods.subscribe(move |change: &Change<Arc<PodView>>| {
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && same_endpoint(&old.view, &new.view)
        {
            return;
        }
        let Some(pod) = change.latest() else { return };
        for service in services.list_namespace(&pod.key.namespace) {
            if change.sides().any(|pod| selects(&service, &pod.view)) {
                queue.add(service.key.clone());
            }
        }
    });
}

fn same_endpoint(old: &PodView, new: &PodView) -> bool {
    let facts =
        |pod: &PodView| (pod.uid.clone(), pod.ready, pod.deletion.is_some(), pod.is_finished(), pod.node.clone());
    facts(old) == facts(new) && old.ips == new.ips && old.labels == new.labels
}

fn selects(service: &Service, pod: &PodView) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value)))
}

fn selected(service: &Service, pods: &Informer<Arc<PodView>>, namespace: &str) -> Vec<Arc<PodView>> {
    let pods = pods.list_namespace(namespace);
    pods.iter().filter(|pod| selects(service, &pod.view)).map(|pod| pod.view.clone()).collect()
}

fn wake_same_name<V: Send + Sync + 'static>(queue: &Queue<ObjectKey>, objects: &Informer<V>) {
    let queue = queue.clone();
    objects.subscribe(move |change| {
        if let Some(object) = change.latest() {
            queue.add(object.key.clone());
        }
    });
}

fn label<'a>(slice: &'a EndpointSlice, key: &str) -> Option<&'a str> {
    slice.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn wake_by_slices(queue: &Queue<ObjectKey>, slices: &Informer<Arc<EndpointSlice>>, manager: &'static str) {
    let queue = queue.clone();
    slices.subscribe(move |change| {
        for slice in change.sides().filter(|slice| label(slice, MANAGED_BY) == Some(manager)) {
            if let Some(service) = label(slice, SERVICE_NAME) {
                queue.add(ObjectKey::new(&slice.key.namespace, service));
            }
        }
    });
}

fn slices_of(slices: &Informer<Arc<EndpointSlice>>, key: &ObjectKey, manager: &str) -> Vec<Arc<EndpointSlice>> {
    let slices = slices.by_index(BY_SERVICE, &key.to_string());
    let mine = |slice: &&Arc<Cached<Arc<EndpointSlice>>>| label(slice, MANAGED_BY) == Some(manager) && !slice.deleting;
    slices.iter().filter(mine).map(|slice| slice.view.clone()).collect()
}

fn shares(nodes: &Informer<Arc<Node>>) -> Option<topology::Zones> {
    topology::Zones::of(nodes.list().iter().map(|node| &*node.view))
}

/// What a zone has changes the hints of every Service that is spread over zones.
fn wake_by_zones(queue: &Queue<ObjectKey>, services: &Informer<Arc<Service>>, nodes: &Informer<Arc<Node>>) {
    let (queue, services) = (queue.clone(), services.clone());
    nodes.subscribe(move |change: &Change<Arc<Node>>| {
        let (old, new) = (change.old.as_ref().map(|node| &*node.view), change.new.as_ref().map(|node| &*node.view));
        if topology::facts(old) == topology::facts(new) {
            return;
        }
        for service in services.list().iter().filter(|service| topology::is_wanted(service)) {
            queue.add(service.key.clone());
        }
    });
}

pub(crate) fn start_slices(context: &Context) {
    let Hubs { services, pods, slices, .. } = Hubs::of(&context.hub);
    let zones = context.hub.informer::<Nodes>();
    let queue = context.queue();
    wake_same_name(&queue, &services);
    wake_by_pods(&queue, &services, &pods);
    wake_by_slices(&queue, &slices, CONTROLLER);
    wake_by_zones(&queue, &services, &zones);
    let writer = Arc::new(context.writer("endpoint-slice-controller").track(ENDPOINT_SLICES, &slices));
    let caches = (services.clone(), pods.clone(), slices.clone(), zones.clone());
    let ready = async move {
        caches.0.synced().await;
        caches.1.synced().await;
        caches.2.synced().await;
        caches.3.synced().await;
    };
    context.work("endpointslice-controller", &queue, ready, move |key| {
        let plan = services.get_key(&key).map(|service| {
            let (pods, slices) = (selected(&service, &pods, &key.namespace), slices_of(&slices, &key, CONTROLLER));
            let zone = |node: &str| {
                let zone = zones.get("", node)?.metadata.labels.as_ref()?.get(topology::ZONE)?.clone();
                Some(zone)
            };
            let shares = topology::is_wanted(&service).then(|| shares(&zones)).flatten();
            reconcile::endpoint_slice::plan(&service, &pods, &slices, &zone, shares.as_ref())
        });
        let writer = writer.clone();
        async move {
            if let Some(plan) = plan {
                writer.apply(&plan).await?;
            }
            Ok(None)
        }
    });
}

pub(crate) fn start_endpoints(context: &Context) {
    let Hubs { services, pods, endpoints, .. } = Hubs::of(&context.hub);
    let queue = context.queue();
    wake_same_name(&queue, &services);
    wake_same_name(&queue, &endpoints);
    wake_by_pods(&queue, &services, &pods);
    let writer = Arc::new(context.writer("endpoint-controller").track(ENDPOINTS, &endpoints));
    let caches = (services.clone(), pods.clone(), endpoints.clone());
    let ready = async move {
        caches.0.synced().await;
        caches.1.synced().await;
        caches.2.synced().await;
    };
    context.work("endpoints-controller", &queue, ready, move |key| {
        let service = services.get_key(&key);
        let pods = service.as_ref().map(|s| selected(s, &pods, &key.namespace)).unwrap_or_default();
        let known = endpoints.get_key(&key);
        let plan = reconcile::endpoints::plan(
            (&key.namespace, &key.name),
            service.as_deref().map(|service| &*service.view),
            &pods,
            known.as_deref().map(|known| &*known.view),
        );
        let writer = writer.clone();
        async move {
            writer.apply(&plan).await?;
            Ok(None)
        }
    });
}

pub(crate) fn start_mirror(context: &Context) {
    let Hubs { services, endpoints, slices, .. } = Hubs::of(&context.hub);
    let queue = context.queue();
    wake_same_name(&queue, &services);
    wake_same_name(&queue, &endpoints);
    wake_by_slices(&queue, &slices, MIRROR);
    let writer = Arc::new(context.writer("endpoint-slice-mirroring-controller").track(ENDPOINT_SLICES, &slices));
    let caches = (services.clone(), endpoints.clone(), slices.clone());
    let ready = async move {
        caches.0.synced().await;
        caches.1.synced().await;
        caches.2.synced().await;
    };
    context.work("endpointslice-mirroring-controller", &queue, ready, move |key| {
        let (service, known) = (services.get_key(&key), endpoints.get_key(&key));
        let plan = reconcile::endpoints::mirror(
            service.as_deref().map(|service| &*service.view),
            known.as_deref().map(|known| &*known.view),
            &slices_of(&slices, &key, MIRROR),
        );
        let writer = writer.clone();
        async move {
            writer.apply(&plan).await?;
            Ok(None)
        }
    });
}

struct Hubs {
    services: Informer<Arc<Service>>,
    pods: Informer<Arc<PodView>>,
    endpoints: Informer<Arc<Endpoints>>,
    slices: Informer<Arc<EndpointSlice>>,
}

impl Hubs {
    fn of(hub: &Hub) -> Self {
        Self {
            services: hub.informer::<Services>(),
            pods: hub.informer::<Pods>(),
            endpoints: hub.informer::<EndpointsObjects>(),
            slices: hub.informer::<EndpointSlices>(),
        }
    }
}

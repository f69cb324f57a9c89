//! Gives addresses to Services of type LoadBalancer; all are one key, so that no port is given out twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::ObjectKey;
use k8s_openapi::api::core::v1::{Node, Service};
use reconcile::load_balancer::plan;
use reconcile::plan::SERVICES;

use crate::runner::Context;
use crate::sources::{BY_SERVICE, EndpointSlices, Nodes, Services};

const NAME: &str = "service-lb-controller";

pub(crate) fn start(context: &Context) {
    let nodes = context.hub.informer::<Nodes>();
    let (services, slices) = (context.hub.informer::<Services>(), context.hub.informer::<EndpointSlices>());
    let queue = context.queue();
    let wake = queue.clone();
    services.subscribe(move |change| {
        if change.sides().any(|service| is_balanced(&service.view)) {
            wake.add(ObjectKey::default());
        }
    });
    let wake = queue.clone();
    nodes.subscribe(move |change| {
        let facts = |node: &Arc<Node>| (ready(node), node.metadata.labels.clone(), addresses(node));
        let same = match (&change.old, &change.new) {
            (Some(old), Some(new)) => facts(&old.view) == facts(&new.view),
            _ => false,
        };
        if !same {
            wake.add(ObjectKey::default());
        }
    });
    // Where a Service's traffic must stay on its node, endpoints decide which nodes take it.
    let (wake, all) = (queue.clone(), services.clone());
    slices.subscribe(move |change| {
        let Some(slice) = change.latest() else { return };
        let owner = slice.metadata.labels.as_ref().and_then(|l| l.get(reconcile::endpoint_slice::SERVICE_NAME));
        let service = owner.and_then(|owner| all.get(&slice.key.namespace, owner));
        if service.is_some_and(|service| is_balanced(&service.view)) {
            wake.add(ObjectKey::default());
        }
    });
    let writer = Arc::new(context.writer("service-controller").track(SERVICES, &services));
    let synced = (nodes.clone(), services.clone(), slices.clone());
    let ready = async move {
        synced.0.synced().await;
        synced.1.synced().await;
        synced.2.synced().await;
    };
    let reserved: BTreeSet<_> =
        context.config.node_ports_reserved.iter().map(|port| ("TCP".to_owned(), *port)).collect();
    context.work(NAME, &queue, ready, move |_| {
        let balanced: Vec<Arc<Service>> =
            services.list().iter().filter(|s| is_balanced(&s.view)).map(|s| s.view.clone()).collect();
        let nodes: Vec<_> = nodes.list().iter().map(|node| node.view.clone()).collect();
        let of = |service: &Service| {
            let meta = &service.metadata;
            let owner = [meta.namespace.as_deref(), meta.name.as_deref()].map(Option::unwrap_or_default).join("/");
            slices.by_index(BY_SERVICE, &owner).iter().map(|slice| slice.view.clone()).collect()
        };
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let (plan, writer) = (plan(&balanced, &nodes, &of, &reserved, &now), writer.clone());
        async move {
            writer.apply(&plan).await?;
            Ok(None)
        }
    });
}

fn is_balanced(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

fn ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn addresses(node: &Node) -> Vec<String> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.map(|address| address.address.clone()).collect()
}

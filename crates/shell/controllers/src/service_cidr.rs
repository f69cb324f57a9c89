//! Runs `reconcile::service_cidr` for each ServiceCIDR, by the addresses that Services have.

use std::net::IpAddr;
use std::sync::Arc;

use client::ObjectKey;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use reconcile::plan::SERVICE_CIDRS;
use reconcile::service_cidr::plan;

use crate::runner::Context;
use crate::sources::{ServiceCidrs, Services};

pub(crate) fn start(context: &Context) {
    let (cidrs, services) = (context.hub.informer::<ServiceCidrs>(), context.hub.informer::<Services>());
    let queue = context.queue();
    let (wake, all) = (queue.clone(), cidrs.clone());
    // One that goes may have waited for the one that came, or wait because another goes.
    cidrs.subscribe(move |change| {
        let others = all.list().into_iter().filter(|cidr| cidr.deleting).map(|cidr| cidr.key.clone());
        change.latest().map(|cidr| cidr.key.clone()).into_iter().chain(others).for_each(|key| wake.add(key));
    });
    let (wake, all) = (queue.clone(), cidrs.clone());
    services.subscribe(move |change| {
        if change.new.is_none() {
            all.list().iter().filter(|cidr| cidr.deleting).for_each(|cidr| wake.add(cidr.key.clone()));
        }
    });
    let writer = Arc::new(context.writer("service-cidrs-controller").track(SERVICE_CIDRS, &cidrs));
    let synced = (cidrs.clone(), services.clone());
    let ready = async move {
        synced.0.synced().await;
        synced.1.synced().await;
    };
    context.work("service-cidr-controller", &queue, ready, move |key: ObjectKey| {
        let due = cidrs.get_key(&key).map(|cidr| {
            let all: Vec<Arc<ServiceCIDR>> = cidrs.list().iter().map(|cidr| cidr.view.clone()).collect();
            let is_used = |asked: &dyn Fn(IpAddr) -> bool| {
                services.list().iter().any(|service| addresses(&service.view).any(asked))
            };
            plan(&cidr, &all, &is_used, jiff::Timestamp::now())
        });
        let writer = writer.clone();
        async move {
            let Some(plan) = due else { return Ok(None) };
            writer.apply(&plan).await?;
            Ok(plan.requeue_after)
        }
    });
}

fn addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    let ips = service.spec.iter().flat_map(|spec| spec.cluster_ips.iter().flatten());
    ips.filter_map(|ip| ip.parse().ok())
}

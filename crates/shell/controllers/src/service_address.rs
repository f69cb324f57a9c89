//! Runs `reconcile::service_address` for each address that a Service has or had.

use std::sync::Arc;

use client::{Cached, ObjectKey};
use k8s_openapi::api::core::v1::Service;
use reconcile::plan::IP_ADDRESSES;
use reconcile::service_address::{addresses, plan};

use crate::runner::Context;
use crate::sources::{BY_ADDRESS, IpAddresses, Services};

const NAME: &str = "service-ip-address-controller";

pub(crate) fn start(context: &Context) {
    let (services, known) = (context.hub.informer::<Services>(), context.hub.informer::<IpAddresses>());
    let queue = context.queue();
    let wake = queue.clone();
    services.subscribe(move |change| {
        let of = |side: &Option<Arc<Cached<Arc<Service>>>>| -> Vec<String> {
            side.iter().flat_map(|service| addresses(&service.view)).collect()
        };
        let (old, new) = (of(&change.old), of(&change.new));
        // most changes of a Service leave its addresses alone
        if old != new {
            old.into_iter().chain(new).for_each(|address| wake.add(ObjectKey::new("", address)));
        }
    });
    let wake = queue.clone();
    known.subscribe(move |change| change.latest().into_iter().for_each(|ip| wake.add(ip.key.clone())));
    let writer = Arc::new(context.writer(NAME).track(IP_ADDRESSES, &known));
    let synced = (services.clone(), known.clone());
    let ready = async move {
        synced.0.synced().await;
        synced.1.synced().await;
    };
    context.work(NAME, &queue, ready, move |key: ObjectKey| {
        let owners = services.by_index(BY_ADDRESS, &key.name);
        let (owner, held) = (owners.first().map(|owner| &*owner.view), known.get_key(&key));
        let (plan, writer) = (plan(&key.name, owner, held.as_ref().map(|ip| &*ip.view)), writer.clone());
        async move {
            writer.apply(&plan).await?;
            Ok(None)
        }
    });
}

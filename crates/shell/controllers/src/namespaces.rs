//! Gives every namespace its default ServiceAccount and CA bundle, and gives them back when they are deleted.

use client::{Informer, ObjectKey, Queue};
use k8s_openapi::api::core::v1::Namespace;
use reconcile::plan::{CONFIG_MAPS, SERVICE_ACCOUNTS};
use reconcile::service_account::{DEFAULT_SERVICE_ACCOUNT, ROOT_CA_CONFIG_MAP, plan_root_ca, plan_service_account};

use crate::runner::Context;
use crate::sources::{DefaultServiceAccounts, RootCaConfigMaps};

/// Wakes the namespace of every changed object of a namespaced kind, and every changed namespace.
fn wake_namespace<V: Send + Sync + 'static>(queue: &Queue<ObjectKey>, objects: &Informer<V>) {
    let queue = queue.clone();
    objects.subscribe(move |change| {
        if let Some(object) = change.latest() {
            let ObjectKey { namespace, name } = object.key.clone();
            queue.add(ObjectKey::new("", if namespace.is_empty() { name } else { namespace }));
        }
    });
}

pub(crate) fn start_service_accounts(context: &Context) {
    let (namespaces, accounts) = (context.hub.whole::<Namespace>(), context.hub.informer::<DefaultServiceAccounts>());
    let queue = context.queue();
    wake_namespace(&queue, &namespaces);
    wake_namespace(&queue, &accounts);
    let writer = std::sync::Arc::new(context.writer("serviceaccount-controller").track(SERVICE_ACCOUNTS, &accounts));
    let (ready_namespaces, ready_accounts) = (namespaces.clone(), accounts.clone());
    let ready = async move {
        ready_namespaces.synced().await;
        ready_accounts.synced().await;
    };
    context.work("serviceaccount-controller", &queue, ready, move |key| {
        let namespace = namespaces.get_key(&key);
        let exists = accounts.get(&key.name, DEFAULT_SERVICE_ACCOUNT).is_some();
        let writer = writer.clone();
        async move {
            if let Some(namespace) = namespace {
                writer.apply(&plan_service_account(&namespace, exists)).await?;
            }
            Ok(None)
        }
    });
}

pub(crate) fn start_root_ca(context: &Context) {
    let (namespaces, maps) = (context.hub.whole::<Namespace>(), context.hub.informer::<RootCaConfigMaps>());
    let queue = context.queue();
    wake_namespace(&queue, &namespaces);
    wake_namespace(&queue, &maps);
    let component = "root-ca-certificate-publisher-controller";
    let writer = std::sync::Arc::new(context.writer(component).track(CONFIG_MAPS, &maps));
    let (ready_namespaces, ready_maps) = (namespaces.clone(), maps.clone());
    let ready = async move {
        ready_namespaces.synced().await;
        ready_maps.synced().await;
    };
    let ca = context.config.root_ca_pem.clone();
    context.work(component, &queue, ready, move |key| {
        let plan = namespaces.get_key(&key).map(|namespace| {
            let known = maps.get(&key.name, ROOT_CA_CONFIG_MAP);
            plan_root_ca(&namespace, known.as_deref().map(|known| &known.view), &ca)
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

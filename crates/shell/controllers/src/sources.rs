//! What the controllers' shared informers keep of each kind, and the indexes over it.

use std::sync::Arc;

use client::{Cached, Index, InformerConfig, Source};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Node, PersistentVolumeClaim, Pod, ReplicationController, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use reconcile::PodView;
use reconcile::endpoint_slice::SERVICE_NAME;
use reconcile::service_account::{DEFAULT_SERVICE_ACCOUNT, ROOT_CA_CONFIG_MAP};
use reconcile::statefulset::ClaimView;

/// Objects by the uid of their controlling owner.
pub(crate) const BY_OWNER: &str = "owner";
/// Objects without a controlling owner, by namespace.
pub(crate) const ORPHANS: &str = "orphans";

fn owner<V>(object: &Cached<V>) -> Vec<String> {
    object.controller.iter().map(|owner| owner.uid.clone()).collect()
}

fn orphan<V>(object: &Cached<V>) -> Vec<String> {
    if object.controller.is_none() { vec![object.key.namespace.clone()] } else { Vec::new() }
}

macro_rules! owned_source {
    ($name:ident, $object:ty, $view:ty, $project:expr, [$($index:expr),*]) => {
        pub(crate) struct $name;
        impl Source for $name {
            type Object = $object;
            type View = Arc<$view>;
            fn project(mut object: $object) -> Arc<$view> {
                object.metadata.managed_fields = None;
                Arc::new($project(object))
            }
            fn indexes() -> &'static [Index<Arc<$view>>] {
                &[Index { name: BY_OWNER, values: owner }, Index { name: ORPHANS, values: orphan }, $($index),*]
            }
        }
    };
}

pub(crate) const BY_NODE: &str = "node";

fn node(pod: &Cached<Arc<PodView>>) -> Vec<String> {
    vec![pod.view.node.clone()]
}

owned_source!(Pods, Pod, PodView, PodView::from_pod, [Index { name: BY_NODE, values: node }]);
owned_source!(ReplicaSets, ReplicaSet, ReplicaSet, std::convert::identity, []);
owned_source!(Jobs, Job, Job, std::convert::identity, []);
owned_source!(CronJobs, CronJob, CronJob, std::convert::identity, []);
owned_source!(DisruptionBudgets, PodDisruptionBudget, PodDisruptionBudget, std::convert::identity, []);
owned_source!(Autoscalers, HorizontalPodAutoscaler, HorizontalPodAutoscaler, std::convert::identity, []);
owned_source!(Deployments, Deployment, Deployment, std::convert::identity, []);
owned_source!(StatefulSets, StatefulSet, StatefulSet, std::convert::identity, []);
owned_source!(DaemonSets, DaemonSet, DaemonSet, std::convert::identity, []);
owned_source!(ControllerRevisions, ControllerRevision, ControllerRevision, std::convert::identity, []);
owned_source!(Claims, PersistentVolumeClaim, ClaimView, ClaimView::from_claim, []);

/// ReplicationControllers, kept in the shape of ReplicaSets.
pub(crate) struct ReplicationControllers;

impl Source for ReplicationControllers {
    type Object = ReplicationController;
    type View = Arc<ReplicaSet>;
    fn project(object: ReplicationController) -> Arc<ReplicaSet> {
        Arc::new(reconcile::replicaset::from_replication_controller(&object))
    }
    fn indexes() -> &'static [Index<Arc<ReplicaSet>>] {
        &[Index { name: BY_OWNER, values: owner }, Index { name: ORPHANS, values: orphan }]
    }
}

/// Only the ConfigMaps that hold the CA bundle.
pub(crate) struct RootCaConfigMaps;

impl Source for RootCaConfigMaps {
    type Object = ConfigMap;
    type View = ConfigMap;
    fn project(mut object: ConfigMap) -> ConfigMap {
        object.metadata.managed_fields = None;
        object
    }
    fn config() -> InformerConfig {
        InformerConfig::all("/api/v1/configmaps").fields(format!("metadata.name={ROOT_CA_CONFIG_MAP}"))
    }
}

/// Only the default ServiceAccounts.
pub(crate) struct DefaultServiceAccounts;

impl Source for DefaultServiceAccounts {
    type Object = k8s_openapi::api::core::v1::ServiceAccount;
    type View = ();
    fn project(_: Self::Object) {}
    fn config() -> InformerConfig {
        InformerConfig::all("/api/v1/serviceaccounts").fields(format!("metadata.name={DEFAULT_SERVICE_ACCOUNT}"))
    }
}

/// EndpointSlices by the `namespace/name` of their Service.
pub(crate) const BY_SERVICE: &str = "service";

fn service_of(slice: &Cached<Arc<EndpointSlice>>) -> Vec<String> {
    let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
    service.map(|service| format!("{}/{service}", slice.key.namespace)).into_iter().collect()
}

/// Services by the addresses that they have.
pub(crate) const BY_ADDRESS: &str = "address";

fn address_of(service: &Cached<Arc<Service>>) -> Vec<String> {
    reconcile::service_address::addresses(&service.view).collect()
}

owned_source!(Services, Service, Service, std::convert::identity, [Index { name: BY_ADDRESS, values: address_of }]);
owned_source!(IpAddresses, IPAddress, IPAddress, std::convert::identity, []);
owned_source!(ServiceCidrs, ServiceCIDR, ServiceCIDR, std::convert::identity, []);
owned_source!(Nodes, Node, Node, without_images, []);
owned_source!(EndpointsObjects, Endpoints, Endpoints, std::convert::identity, []);
owned_source!(
    EndpointSlices,
    EndpointSlice,
    EndpointSlice,
    std::convert::identity,
    [Index { name: BY_SERVICE, values: service_of }]
);

/// The image list is the bulk of a Node and no controller reads it.
fn without_images(mut node: Node) -> Node {
    if let Some(status) = &mut node.status {
        status.images = None;
    }
    node
}

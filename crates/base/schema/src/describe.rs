//! Descriptions of built-in types, read from the typed API crate when a document is built and dropped with it.

use k8s_openapi::{api, apiextensions_apiserver, apimachinery, kube_aggregator};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// Every definition that the served kinds lead to, by OpenAPI name.
pub(crate) struct Descriptions(Map<String, Value>);

impl Descriptions {
    pub fn read() -> Self {
        let mut generator = SchemaSettings::openapi3().into_generator();
        macro_rules! roots {
            ($($module:path: $($kind:ident)*;)*) => { $({
                #[allow(clippy::wildcard_imports)]
                use $module::*;
                $(generator.subschema_for::<$kind>();)*
            })* };
        }
        roots! {
            api::admissionregistration::v1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration;
            api::apps::v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
            api::authentication::v1: SelfSubjectReview TokenRequest TokenReview;
            api::authorization::v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview;
            api::autoscaling::v1: HorizontalPodAutoscaler Scale;
            api::autoscaling::v2: HorizontalPodAutoscaler;
            api::batch::v1: CronJob Job;
            api::certificates::v1: CertificateSigningRequest;
            api::coordination::v1: Lease;
            api::core::v1: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount;
            api::discovery::v1: EndpointSlice;
            api::events::v1: Event;
            api::flowcontrol::v1: FlowSchema PriorityLevelConfiguration;
            api::networking::v1: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR;
            api::node::v1: RuntimeClass;
            api::policy::v1: Eviction PodDisruptionBudget;
            api::rbac::v1: ClusterRole ClusterRoleBinding Role RoleBinding;
            api::resource::v1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
            api::scheduling::v1: PriorityClass;
            api::storage::v1: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass;
            apiextensions_apiserver::pkg::apis::apiextensions::v1: CustomResourceDefinition;
            apimachinery::pkg::apis::meta::v1: APIGroup APIVersions DeleteOptions Status;
            kube_aggregator::pkg::apis::apiregistration::v1: APIService;
        }
        Self(generator.take_definitions(true))
    }

    /// The typed crate's whole schema of a type.
    #[cfg(test)]
    pub fn schema(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub fn of_type(&self, name: &str) -> Option<String> {
        Some(self.0.get(name)?.get("description")?.as_str()?.to_owned())
    }

    pub fn of_field(&self, owner: &str, field: &str) -> Option<String> {
        Some(self.0.get(owner)?.get("properties")?.get(field)?.get("description")?.as_str()?.to_owned())
    }
}

//! The kinds of the core group.

mod binding;
mod componentstatus;
mod configmap;
mod container_rules;
mod data_rules;
mod endpoints;
mod event;
mod limitrange;
mod namespace;
mod node;
mod persistentvolume;
mod persistentvolumeclaim;
mod pod;
mod pod_columns;
mod pod_defaults;
mod pod_level;
mod pod_resize;
mod pod_rules;
mod podtemplate;
mod qos;
mod replicationcontroller;
mod resource_rules;
mod resourcequota;
mod secret;
mod service;
mod service_rules;
mod serviceaccount;
mod storage_rules;

pub(crate) use self::container_rules::resources as validate_resources;
pub(crate) use self::persistentvolumeclaim::{default_claim, validate_claim_spec};
pub(crate) use self::pod_defaults::default_template;
pub use self::pod_resize::resized_pod;
pub(crate) use self::pod_rules::{tolerations as validate_tolerations, validate_template};
pub use self::qos::qos_class;
pub(crate) use self::resource_rules::container_name;
use crate::kind::Kind;

const V1: (&str, &str) = ("", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![
        binding::kind(),
        componentstatus::kind(),
        configmap::kind(),
        endpoints::kind(),
        event::kind(),
        limitrange::kind(),
        namespace::kind(),
        node::kind(),
        persistentvolumeclaim::kind(),
        persistentvolume::kind(),
        pod::kind(),
        podtemplate::kind(),
        replicationcontroller::kind(),
        resourcequota::kind(),
        secret::kind(),
        serviceaccount::kind(),
        service::kind(),
    ]
}

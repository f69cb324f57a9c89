//! apps/v1 Deployment: rolls out ReplicaSets.

use meta::Gvk;

use super::V1;
use crate::kind::{Kind, Subresource, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["deploy"]),
        categories: texts(&["all"]),
        has_status: true,
        has_generation: true,
        subresources: vec![Subresource::speaking(
            "scale",
            Gvk::new("autoscaling", "v1", "Scale"),
            &["get", "patch", "update"],
        )]
        .into(),
        ..Kind::namespaced(V1, "Deployment", "deployments")
    }
}

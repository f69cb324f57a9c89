//! v1 ReplicationController: keeps a number of equal pods running; the ancestor of ReplicaSet.

use meta::Gvk;

use super::V1;
use crate::kind::{Kind, Subresource, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["rc"]),
        categories: texts(&["all"]),
        has_status: true,
        has_generation: true,
        subresources: vec![Subresource::speaking(
            "scale",
            Gvk::new("autoscaling", "v1", "Scale"),
            &["get", "patch", "update"],
        )]
        .into(),
        ..Kind::namespaced(V1, "ReplicationController", "replicationcontrollers")
    }
}

//! v1 Service: a stable address and name for a set of pods.

use meta::Gvk;

use super::V1;
use crate::kind::{Kind, Subresource, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["svc"]),
        categories: texts(&["all"]),
        has_status: true,
        subresources: vec![Subresource::speaking(
            "proxy",
            Gvk::new("", "v1", "ServiceProxyOptions"),
            &["create", "delete", "get", "patch", "update"],
        )]
        .into(),
        ..Kind::namespaced(V1, "Service", "services")
    }
}

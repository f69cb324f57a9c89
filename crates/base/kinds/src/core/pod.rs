//! v1 Pod: containers that run together on one node.

use meta::Gvk;

use super::V1;
use crate::kind::{Kind, Subresource, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["po"]),
        categories: texts(&["all"]),
        has_status: true,
        has_generation: true,
        subresources: vec![
            Subresource::speaking("attach", Gvk::new("", "v1", "PodAttachOptions"), &["create", "get"]),
            Subresource::speaking("binding", Gvk::new("", "v1", "Binding"), &["create"]),
            Subresource::new("ephemeralcontainers", &["get", "patch", "update"]),
            Subresource::speaking("eviction", Gvk::new("policy", "v1", "Eviction"), &["create"]),
            Subresource::speaking("exec", Gvk::new("", "v1", "PodExecOptions"), &["create", "get"]),
            Subresource::new("log", &["get"]),
            Subresource::speaking("portforward", Gvk::new("", "v1", "PodPortForwardOptions"), &["create", "get"]),
            Subresource::speaking(
                "proxy",
                Gvk::new("", "v1", "PodProxyOptions"),
                &["create", "delete", "get", "patch", "update"],
            ),
            Subresource::new("resize", &["get", "patch", "update"]),
        ]
        .into(),
        ..Kind::namespaced(V1, "Pod", "pods")
    }
}

//! v1 Node: a machine that runs pods.

use meta::Gvk;

use super::V1;
use crate::kind::{Kind, Subresource, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["no"]),
        has_status: true,
        subresources: vec![Subresource::speaking(
            "proxy",
            Gvk::new("", "v1", "NodeProxyOptions"),
            &["create", "delete", "get", "patch", "update"],
        )]
        .into(),
        ..Kind::cluster(V1, "Node", "nodes")
    }
}

//! v1 ServiceAccount: an identity for what runs in pods.

use meta::Gvk;

use super::V1;
use crate::columns;
use crate::kind::{Kind, Subresource, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["sa"]),
        subresources: vec![Subresource::speaking(
            "token",
            Gvk::new("authentication.k8s.io", "v1", "TokenRequest"),
            &["create"],
        )]
        .into(),
        columns: vec![columns::name(), columns::age()].into(),
        ..Kind::namespaced(V1, "ServiceAccount", "serviceaccounts")
    }
}

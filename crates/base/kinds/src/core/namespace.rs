//! v1 Namespace: the space that names live in.

use super::V1;
use crate::kind::{Kind, Subresource, Verbs, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["ns"]),
        verbs: Verbs::AllButDeleteCollection,
        has_status: true,
        subresources: vec![Subresource::new("finalize", &["update"])].into(),
        ..Kind::cluster(V1, "Namespace", "namespaces")
    }
}

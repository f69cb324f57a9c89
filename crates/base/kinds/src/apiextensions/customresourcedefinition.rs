//! apiextensions.k8s.io/v1 CustomResourceDefinition: a kind defined at run time.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["crd", "crds"]),
        categories: texts(&["api-extensions"]),
        has_status: true,
        has_generation: true,
        ..Kind::cluster(V1, "CustomResourceDefinition", "customresourcedefinitions")
    }
}

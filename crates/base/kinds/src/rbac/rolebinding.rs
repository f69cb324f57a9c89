//! rbac.authorization.k8s.io/v1 RoleBinding: gives a role to subjects in a namespace.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind {
        validate_name: meta::names::path_segment,
        columns: super::binding::columns().into(),
        default: super::binding::default,
        ..Kind::namespaced(V1, "RoleBinding", "rolebindings")
    }
}

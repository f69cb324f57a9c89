//! rbac.authorization.k8s.io/v1 RoleBinding: gives a role to subjects in a namespace.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind {
        validate_name: meta::names::path_segment,
        columns: super::binding::columns().into(),
        default: super::binding::default,
        validate: |binding| super::binding::validate(binding, &["Role", "ClusterRole"]),
        validate_update: super::binding::validate_update,
        ..Kind::namespaced(V1, "RoleBinding", "rolebindings")
    }
}

//! rbac.authorization.k8s.io/v1 ClusterRoleBinding: gives a ClusterRole to subjects everywhere.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind {
        validate_name: meta::names::path_segment,
        columns: super::binding::columns().into(),
        default: super::binding::default,
        validate: |binding| super::binding::validate(binding, &["ClusterRole"]),
        validate_update: super::binding::validate_update,
        ..Kind::cluster(V1, "ClusterRoleBinding", "clusterrolebindings")
    }
}

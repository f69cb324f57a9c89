//! rbac.authorization.k8s.io/v1 Role: permissions in a namespace.

use super::V1;
use crate::columns;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind {
        validate_name: meta::names::path_segment,
        validate: |role| super::rules::validate(role, true),
        columns: columns::created_at().into(),
        ..Kind::namespaced(V1, "Role", "roles")
    }
}

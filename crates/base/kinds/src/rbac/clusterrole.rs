//! rbac.authorization.k8s.io/v1 ClusterRole: permissions on any namespace and on cluster objects.

use super::V1;
use crate::columns;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind {
        validate_name: meta::names::path_segment,
        validate: |role| super::rules::validate(role, false),
        columns: columns::created_at().into(),
        ..Kind::cluster(V1, "ClusterRole", "clusterroles")
    }
}

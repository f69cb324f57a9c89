//! The whole table of built-in kinds, in the order that discovery lists groups.

use std::sync::LazyLock;

use crate::{
    Kind, admissionregistration, apiextensions, apiregistration, apps, authentication, authorization, autoscaling,
    batch, certificates, coordination, core, discovery, events, flowcontrol, metrics, networking, node, policy, rbac,
    resource, scheduling, storage,
};

static TABLE: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    [
        core::kinds(),
        apiregistration::kinds(),
        apps::kinds(),
        events::kinds(),
        authentication::kinds(),
        authorization::kinds(),
        autoscaling::kinds(),
        batch::kinds(),
        certificates::kinds(),
        networking::kinds(),
        policy::kinds(),
        rbac::kinds(),
        storage::kinds(),
        admissionregistration::kinds(),
        apiextensions::kinds(),
        scheduling::kinds(),
        coordination::kinds(),
        node::kinds(),
        discovery::kinds(),
        resource::kinds(),
        flowcontrol::kinds(),
        metrics::kinds(),
    ]
    .concat()
});

/// Every built-in kind. Groups come in the order of discovery; of several versions the preferred one comes first.
pub fn builtin() -> &'static [Kind] {
    &TABLE
}

/// The built-in row of a kind.
///
/// ```
/// assert_eq!(kinds::find("apps", "v1", "Deployment").unwrap().plural, "deployments");
/// ```
pub fn find(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    builtin().iter().find(|row| row.group == group && row.version == version && row.kind == kind)
}

/// The built-in row that serves a resource: `("apps", "v1", "deployments")`.
pub fn find_resource(group: &str, version: &str, resource: &str) -> Option<&'static Kind> {
    builtin().iter().find(|row| row.group == group && row.version == version && row.plural == resource)
}

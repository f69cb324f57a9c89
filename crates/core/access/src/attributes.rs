//! A request as authorization sees it, and the answer.

use std::collections::BTreeMap;

/// Who asks. Groups include `system:authenticated` or `system:unauthenticated`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What is asked for: a resource request, or a path where `resource` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub user: User,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or the lower-case HTTP method
    /// for a path; also special ones: `impersonate`, `bind`, `escalate`, `approve`, `sign`, `use`.
    pub verb: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// The URL path of a non-resource request; empty otherwise.
    pub path: String,
    /// The `field=value` equalities of the request's fieldSelector: a node may list the pods that run on it.
    pub field_selector: Vec<(String, String)>,
}

impl Attributes {
    pub fn is_resource_request(&self) -> bool {
        !self.resource.is_empty()
    }

    /// Whether the fieldSelector demands exactly this value of this field.
    pub fn selects(&self, field: &str, value: &str) -> bool {
        self.field_selector.iter().any(|(f, v)| f == field && v == value)
    }
}

impl User {
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Members of `system:masters` pass every check, so that a cluster whose roles are broken can be repaired.
    pub fn is_master(&self) -> bool {
        self.in_group(SYSTEM_MASTERS)
    }
}

pub const SYSTEM_MASTERS: &str = "system:masters";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// What an authorizer thinks; the first that is sure decides, and nobody sure means no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow { reason: String },
    Deny { reason: String },
    NoOpinion { reason: String },
}

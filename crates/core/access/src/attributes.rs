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
}

/// What an authorizer thinks; the first that is sure decides, and nobody sure means no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow { reason: String },
    Deny { reason: String },
    NoOpinion { reason: String },
}

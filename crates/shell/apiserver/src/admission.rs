//! The door between validation and storage where policies look at a write and may change or refuse it.

pub mod limit_ranger;
pub mod pods;
pub mod quota;
pub mod service;

use std::ops::Bound;
use std::sync::Arc;

use access::User;
use access::admission::service::Ranges;
use async_trait::async_trait;
use meta::ApiResult;
use serde_json::Value;

use crate::engine::Engine;
use crate::registry::Served;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// One write as admission sees it. `engine` answers questions about other objects from the cache.
pub struct AdmissionRequest<'a> {
    pub engine: &'a Engine,
    pub operation: Operation,
    pub served: &'a Served,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub user: &'a User,
    pub dry_run: bool,
    /// The object as it is stored; none on create.
    pub old: Option<&'a Value>,
}

/// One admission plugin. Both calls may run more than once for one request (retries after conflicts).
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// May change the new object. On delete the object is the old one and changes are lost.
    async fn mutate(&self, _request: &AdmissionRequest<'_>, _object: &mut Value) -> ApiResult<()> {
        Ok(())
    }

    /// Sees the final object.
    async fn validate(&self, _request: &AdmissionRequest<'_>, _object: &Value) -> ApiResult<()> {
        Ok(())
    }

    /// The write was committed; for plugins that count or release what an object held.
    async fn committed(&self, _request: &AdmissionRequest<'_>, _object: &Value) {}
}

/// The plugins that every cluster runs, in their order; [`quota::ResourceQuota`] comes behind all others. `ranges` is where Services get addresses and ports from.
pub fn builtin(ranges: Ranges) -> Vec<Arc<dyn Admission>> {
    vec![
        Arc::new(limit_ranger::LimitRanger),
        Arc::new(pods::TaintNodesByCondition),
        Arc::new(pods::ServiceAccount),
        Arc::new(pods::Priority),
        Arc::new(pods::DefaultTolerationSeconds),
        Arc::new(pods::RuntimeClass),
        Arc::new(service::ServiceAllocation::new(ranges)),
    ]
}

/// The objects of one namespace as the cache knows them, by name.
fn in_namespace(
    engine: &Engine,
    group: &str,
    plural: &str,
    namespace: &str,
) -> impl Iterator<Item = ApiResult<Value>> + use<> {
    let objects = engine.snapshot(group, plural).objects;
    // '0' follows '/'.
    let (first, end) = (format!("{namespace}/"), format!("{namespace}0"));
    let range = objects.range::<_, str>((Bound::Included(first.as_str()), Bound::Excluded(end.as_str())));
    let found: Vec<_> = range.map(|(_, object)| object.clone()).collect();
    found.into_iter().map(|object| object.value())
}

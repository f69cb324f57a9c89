//! The door between validation and storage where policies look at a write and may change or refuse it.

pub mod chain;
pub mod expressions;
pub mod ingress_class;
pub mod limit_ranger;
pub mod pod_security;
pub mod pods;
pub mod policies;
pub mod quota;
pub mod service;
pub mod storage;
pub mod webhooks;

use std::ops::Bound;
use std::sync::Arc;

use access::User;
use access::admission::service::Ranges;
use async_trait::async_trait;
use meta::{ApiResult, Gvk};
use serde_json::{Map, Value};

use crate::call::WriteOptions;
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
    pub options: &'a WriteOptions,
    /// The `DeleteOptions` of a deletion.
    pub deletion: Option<&'a Value>,
}

impl AdmissionRequest<'_> {
    /// The kind of the object: a subresource may speak another one than its resource.
    pub fn kind(&self) -> Gvk {
        let speaks = self.served.subresource(self.subresource).and_then(|sub| sub.speaks.clone());
        speaks.unwrap_or_else(|| self.served.kind.gvk())
    }

    /// The options of the request as `meta.k8s.io/v1` writes them.
    pub fn options(&self) -> Value {
        let (kind, fixed) = match (self.operation, self.deletion) {
            (Operation::Delete, Some(deletion)) => ("DeleteOptions", deletion.clone()),
            (Operation::Delete, None) => ("DeleteOptions", Value::Null),
            (Operation::Create, _) => ("CreateOptions", Value::Null),
            (Operation::Update, _) => ("UpdateOptions", Value::Null),
            (Operation::Connect, _) => return Value::Null,
        };
        let mut fields = match fixed {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        fields.insert("kind".to_owned(), kind.into());
        fields.insert("apiVersion".to_owned(), "meta.k8s.io/v1".into());
        if self.dry_run {
            fields.insert("dryRun".to_owned(), vec!["All"].into());
        }
        if self.operation != Operation::Delete {
            let validation = format!("{:?}", self.options.field_validation);
            for (key, text) in [("fieldManager", self.options.field_manager.as_str()), ("fieldValidation", &validation)]
            {
                if !text.is_empty() {
                    fields.insert(key.to_owned(), text.into());
                }
            }
        }
        Value::Object(fields)
    }
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
        Arc::new(storage::DefaultStorageClass),
        Arc::new(storage::StorageObjectInUseProtection),
        Arc::new(storage::PersistentVolumeClaimResize),
        Arc::new(pods::RuntimeClass),
        Arc::new(pods::PodResizeValidator),
        Arc::new(ingress_class::DefaultIngressClass),
        Arc::new(pod_security::PodSecurity),
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

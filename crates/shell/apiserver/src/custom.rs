//! Custom kinds: what a CustomResourceDefinition adds to a row of the kind table, and who follows definitions.

mod cells;
mod conditions;
mod converter;
mod fit;
mod follow;
mod instances;
mod rows;

use std::sync::Arc;

use schema::TypeRef;
use serde_json::Value;

use crate::registry::Served;

pub use cells::PrinterColumn;
pub use conditions::put as put_condition;
pub use converter::Converter;
pub use follow::start;

/// Facts of a custom kind that built-in rows hold as functions.
#[derive(Clone)]
pub struct CustomType {
    pub list_kind: String,
    /// JSON paths of `selectableFields`, without the leading dot.
    pub selectable: Vec<String>,
    /// Those of all versions: what the shared cache reads.
    pub indexed: Vec<String>,
    /// The compiled schema of this version; absent where everything is allowed.
    pub schema: Option<TypeRef>,
    /// The compiled schema of the version that objects are stored in.
    pub storage_schema: Option<TypeRef>,
    /// The schema as its author wrote it, for OpenAPI.
    pub document: Value,
    pub scale: Option<ScalePaths>,
    pub columns: Vec<PrinterColumn>,
    /// Stored objects may be older than their schema, or of another version: reads prune and fill in defaults.
    pub reshapes: bool,
    /// Turns objects into other versions where renaming them is not enough.
    pub converter: Option<Arc<Converter>>,
    /// The definition is being deleted: nothing new is created.
    pub terminating: bool,
    /// Sent with every answer where the version is deprecated.
    pub deprecation: Option<String>,
}

/// JSON pointers into a custom object that its `scale` subresource reads and writes.
#[derive(Clone, Debug, Default)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub selector: Option<String>,
}

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";

/// Holds a deleted definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The finalizers that a deletion adds by itself: a definition goes after its objects.
pub fn deletion_finalizer(served: &Served) -> Option<&'static str> {
    (served.kind.group == GROUP && served.kind.plural == PLURAL).then_some(CLEANUP)
}

//! What a CustomResourceDefinition adds to a row of the kind table.

/// Facts of a custom kind that built-in rows hold as functions.
#[derive(Clone, Default)]
pub struct CustomType {
    pub list_kind: String,
    /// JSON paths of `selectableFields`, without the leading dot.
    pub selectable: Vec<String>,
    /// The compiled schema; absent where everything is allowed.
    pub schema: Option<schema::TypeRef>,
    /// The schema as its author wrote it, for OpenAPI.
    pub document: serde_json::Value,
    pub scale: Option<ScalePaths>,
}

/// JSON pointers into a custom object that its `scale` subresource reads and writes.
#[derive(Clone, Debug, Default)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub selector: Option<String>,
}

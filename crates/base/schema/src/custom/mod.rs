//! Types of custom resources: compiled from a structural OpenAPI schema into the one model, and what only they need.

mod before;
mod cel_types;
mod check;
mod compile;
mod cost;
mod definition;
mod expression_check;
mod expressions;
mod fit;
mod format;
mod rules;
mod validate;

pub use cel_types::resource_cel_type;
pub use check::check_schema;
pub use compile::compile;
pub use definition::{validate_definition, validate_definition_update, warnings};
pub use expressions::{Expressions, Found, run as run_expressions};
pub use fit::{coerce_metadata, fill_defaults, prune};
pub use rules::Rules;
pub use validate::{validate, validate_change};

use serde_json::Value;

/// What the author of a custom resource said about a value beyond its shape.
#[derive(Debug, Default)]
pub struct Custom {
    /// `x-kubernetes-preserve-unknown-fields`: nothing is pruned here.
    pub preserves_unknown: bool,
    /// `x-kubernetes-embedded-resource`, and the root: apiVersion, kind and metadata belong to it.
    pub embedded: bool,
    pub nullable: bool,
    pub default: Option<Value>,
    pub rules: Rules,
    /// `x-kubernetes-validations`.
    pub expressions: Option<Box<Expressions>>,
    /// Whether there are any here or below.
    pub has_expressions: bool,
}

//! Field paths and the errors that validation reports about them, worded as Kubernetes words them.

use std::fmt;

use serde_json::Value;

use crate::status::Cause;

/// The place of a value inside an object: `spec.containers[0].image`, `metadata.labels[app.kubernetes.io/name]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(String);

impl FieldPath {
    pub fn new(root: &str) -> Self {
        Self(root.to_owned())
    }

    /// The path of a field below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The path of a list element.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path of a map entry.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// Every complaint about one object, in the order found.
pub type FieldErrors = Vec<FieldError>;

/// One complaint about one field; `reason` is the machine-readable cause clients switch on.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub field: FieldPath,
    pub reason: &'static str,
    /// The message without the field: `Invalid value: "x": must be positive`.
    pub message: String,
}

impl FieldError {
    fn new(field: &FieldPath, reason: &'static str, message: String) -> Self {
        Self { field: field.clone(), reason, message }
    }

    pub fn required(field: &FieldPath, detail: &str) -> Self {
        Self::new(field, "FieldValueRequired", with_detail("Required value".to_owned(), detail))
    }

    pub fn invalid(field: &FieldPath, value: impl Into<Value>, detail: impl AsRef<str>) -> Self {
        let head = format!("Invalid value: {}", show(&value.into()));
        Self::new(field, "FieldValueInvalid", with_detail(head, detail.as_ref()))
    }

    /// An invalid value that the message does not show.
    pub fn invalid_unshown(field: &FieldPath, detail: impl AsRef<str>) -> Self {
        Self::new(field, "FieldValueInvalid", with_detail("Invalid value".to_owned(), detail.as_ref()))
    }

    pub fn type_invalid(field: &FieldPath, value: impl Into<Value>, detail: &str) -> Self {
        let head = format!("Invalid value: {}", show(&value.into()));
        Self::new(field, "FieldValueTypeInvalid", with_detail(head, detail))
    }

    /// A value outside a closed list; the list is shown in the order given.
    pub fn not_supported(field: &FieldPath, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {}: supported values: {list}", show(&value.into()));
        Self::new(field, "FieldValueNotSupported", message)
    }

    /// The same with the values in the order that a schema lists them.
    pub fn unsupported(field: &FieldPath, value: impl Into<Value>, supported: &[String]) -> Self {
        let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {}: supported values: {list}", show(&value.into()));
        Self::new(field, "FieldValueNotSupported", message)
    }

    pub fn duplicate(field: &FieldPath, value: impl Into<Value>) -> Self {
        Self::new(field, "FieldValueDuplicate", format!("Duplicate value: {}", show(&value.into())))
    }

    pub fn forbidden(field: &FieldPath, detail: impl AsRef<str>) -> Self {
        Self::new(field, "FieldValueForbidden", with_detail("Forbidden".to_owned(), detail.as_ref()))
    }

    pub fn not_found(field: &FieldPath, value: impl Into<Value>) -> Self {
        Self::new(field, "FieldValueNotFound", format!("Not found: {}", show(&value.into())))
    }

    /// A string, list or map that may hold at most `max` bytes.
    pub fn too_long(field: &FieldPath, max: usize) -> Self {
        let plural = if max == 1 { "byte" } else { "bytes" };
        Self::new(field, "FieldValueTooLong", format!("Too long: may not be more than {max} {plural}"))
    }

    pub fn too_many(field: &FieldPath, actual: usize, max: usize) -> Self {
        let plural = if max == 1 { "item" } else { "items" };
        let message = format!("Too many: {actual}: must have at most {max} {plural}");
        Self::new(field, "FieldValueTooMany", message)
    }

    pub fn cause(&self) -> Cause {
        Cause { reason: self.reason.to_owned(), message: self.message.clone(), field: self.field.to_string() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

fn with_detail(head: String, detail: &str) -> String {
    if detail.is_empty() { head } else { format!("{head}: {detail}") }
}

/// Strings are quoted as Go's `%q` does, everything else is printed as compact JSON.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        other => other.to_string(),
    }
}

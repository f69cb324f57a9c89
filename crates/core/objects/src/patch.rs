//! The patch bodies of the API: JSON patch, JSON merge patch and strategic merge patch, with upstream's errors.

use meta::{Cause, Reason, Status, StatusDetails};
use schema::Type;
use serde_json::{Map, Value};

use crate::strategic;

/// Operations in one JSON patch.
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;
/// Bytes that the copy operations of one patch may add together: each can double the object.
pub const COPIED_BYTES_MAX: usize = 3 << 20;
/// Nesting that a patched object may reach: operations can nest what was flat.
pub const PATCHED_DEPTH_MAX: usize = 120;

/// Why a patch did not apply. Always final: the same patch fails again on the same object.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PatchError {
    /// The body is not a patch: 400.
    #[error("{0}")]
    Malformed(String),
    /// More operations than one patch may hold: 413.
    #[error("The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {0}")]
    TooLarge(usize),
    /// An operation failed (`test`, or a path that does not exist): 422 without details, as upstream answers it.
    #[error("the server rejected our request due to an error in our request")]
    Rejected,
    /// The patch and the object do not fit together: 422 on the field `patch`.
    #[error("{detail}")]
    Invalid { patch: String, detail: String },
    /// A patch that contradicts itself: 500 upstream, and so here.
    #[error("{0}")]
    Directive(String),
}

impl PatchError {
    pub fn status(&self) -> Box<Status> {
        match self {
            Self::Malformed(why) => Status::bad_request(why.clone()),
            Self::TooLarge(_) => Status::failure(Reason::RequestEntityTooLarge, self.to_string()),
            Self::Rejected => {
                let mut status = Status::failure(Reason::Invalid, self.to_string());
                status.details = Some(StatusDetails::default());
                status
            }
            Self::Invalid { patch, detail } => {
                let message = format!("Invalid value: {patch:?}: {detail}");
                let mut status = Status::failure(Reason::Invalid, format!(" \"\" is invalid: patch: {message}"));
                let cause = Cause { reason: "FieldValueInvalid".into(), message, field: "patch".into() };
                status.details = Some(StatusDetails { causes: vec![cause], ..StatusDetails::default() });
                status
            }
            Self::Directive(why) => {
                let mut status = Status::internal(why);
                status.message = why.clone();
                status
            }
        }
    }
}

/// Applies RFC 6902 operations. On error the object is left half patched: give a copy.
pub fn json_patch(object: &mut Value, patch: &[u8]) -> Result<(), PatchError> {
    let parsed: Value = serde_json::from_slice(patch).map_err(|e| malformed("error decoding patch: ", &e))?;
    let Value::Array(operations) = parsed else {
        let what = kind_of(&parsed);
        let target = "[]handlers.jsonPatchOp";
        return Err(PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {what} into Go value of type {target}"
        )));
    };
    if operations.len() > JSON_PATCH_OPERATIONS_MAX {
        return Err(PatchError::TooLarge(operations.len()));
    }
    let mut copied = 0;
    for operation in operations {
        let mut one: json_patch::PatchOperation =
            serde_json::from_value(operation).map_err(|_| PatchError::Rejected)?;
        // Upstream's library lets `replace` create a member of an object that exists.
        if let json_patch::PatchOperation::Replace(replace) = &one
            && object.pointer(replace.path.as_str()).is_none()
        {
            let (path, value) = (replace.path.clone(), replace.value.clone());
            one = json_patch::PatchOperation::Add(json_patch::AddOperation { path, value });
        }
        if let json_patch::PatchOperation::Copy(copy) = &one {
            copied += object.pointer(copy.from.as_str()).map_or(0, |source| source.to_string().len());
            if copied > COPIED_BYTES_MAX {
                return Err(PatchError::Rejected);
            }
        }
        json_patch::patch_unsafe(object, std::slice::from_ref(&one)).map_err(|_| PatchError::Rejected)?;
        // Checked after each step, because a copy can double the depth that the step before reached.
        if depth_exceeds(object, PATCHED_DEPTH_MAX) {
            return Err(PatchError::Rejected);
        }
    }
    Ok(())
}

fn depth_exceeds(value: &Value, left: usize) -> bool {
    match value {
        Value::Array(items) => left == 0 || items.iter().any(|item| depth_exceeds(item, left - 1)),
        Value::Object(map) => left == 0 || map.values().any(|item| depth_exceeds(item, left - 1)),
        _ => false,
    }
}

/// Applies RFC 7396.
pub fn merge_patch(object: &mut Value, patch: &[u8]) -> Result<(), PatchError> {
    let patch = patch_object(patch, "error decoding patch: ")?;
    json_patch::merge(object, &Value::Object(patch));
    Ok(())
}

/// Applies a strategic merge patch by what the schema says about lists. On error the object is left half patched.
pub fn strategic_merge_patch(ty: &Type, object: &mut Value, patch: &[u8]) -> Result<(), PatchError> {
    let patch = patch_object(patch, "")?;
    let shown = || go_print(&Value::Object(patch.clone()));
    let target = std::mem::take(object);
    let Value::Object(target) = target else {
        return Err(PatchError::Invalid { patch: shown(), detail: "the object is not a map".into() });
    };
    let merged = strategic::merge(Some(ty), target, patch.clone()).map_err(|error| match error {
        strategic::MergeError::Format(why) => PatchError::Malformed(why),
        strategic::MergeError::Directive(why) => PatchError::Directive(why),
        strategic::MergeError::Shape(detail) => PatchError::Invalid { patch: shown(), detail },
    })?;
    *object = Value::Object(merged);
    Ok(())
}

fn patch_object(patch: &[u8], prefix: &str) -> Result<Map<String, Value>, PatchError> {
    match serde_json::from_slice(patch).map_err(|e| malformed(prefix, &e))? {
        Value::Object(map) => Ok(map),
        other => Err(PatchError::Malformed(format!(
            "{prefix}json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            kind_of(&other)
        ))),
    }
}

fn malformed(prefix: &str, error: &serde_json::Error) -> PatchError {
    let why = if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() };
    PatchError::Malformed(format!("{prefix}{why}"))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as Go's `%v` prints it, which upstream quotes in patch errors.
pub(crate) fn go_print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().map(|(key, value)| format!("{key}:{}", go_print(value))).collect();
            entries.sort_unstable();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

//! Short reads of JSON objects: a dotted path to a field, with the empty value where it is absent.

use serde_json::Value;

/// The value at a dotted path, `Null` where any step is missing.
pub fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |value, step| &value[step])
}

/// The string at a dotted path, empty where it is missing or no string.
pub fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).as_str().unwrap_or_default()
}

/// The integer at a dotted path, 0 where it is missing.
pub fn int(object: &Value, path: &str) -> i64 {
    at(object, path).as_i64().unwrap_or_default()
}

/// The list at a dotted path, empty where it is missing.
pub fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path).as_array().map_or(&[], Vec::as_slice)
}

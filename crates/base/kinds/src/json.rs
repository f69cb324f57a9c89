//! Short reads and writes of JSON objects that never panic: what is absent or of another type reads as empty.

use serde_json::{Map, Value};

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

/// The boolean at a dotted path, false where it is missing.
pub fn flag(object: &Value, path: &str) -> bool {
    at(object, path).as_bool().unwrap_or_default()
}

/// The map at a dotted path; `None` where it is missing.
pub fn map<'a>(object: &'a Value, path: &str) -> Option<&'a Map<String, Value>> {
    at(object, path).as_object()
}

/// Whether a field is set to anything.
pub fn has(object: &Value, path: &str) -> bool {
    !at(object, path).is_null()
}

/// Whether a value is what Go's decoder takes for unset: absent, `""`, `0`, `false`, an empty list or map.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// A field to change, where it is set.
pub fn child<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    object.as_object_mut()?.get_mut(key).filter(|value| !value.is_null())
}

/// A field to change, made an empty object where it is missing.
pub fn ensure<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    let value = object.as_object_mut()?.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    Some(value)
}

/// The elements of a list field, to change.
pub fn items<'a>(object: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    child(object, key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Sets a field, whatever it was.
pub fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(key.to_owned(), value.into());
    }
}

/// Removes a field.
pub fn remove(object: &mut Value, key: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(key);
    }
}

/// The default of an optional field: set where the field is missing.
pub fn fill(object: &mut Value, key: &str, value: impl Into<Value>) {
    if object[key].is_null() {
        set(object, key, value);
    }
}

/// The default of a field whose empty value means unset.
pub fn fill_empty(object: &mut Value, key: &str, value: impl Into<Value>) {
    if is_empty(&object[key]) {
        set(object, key, value);
    }
}

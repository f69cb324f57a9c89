//! Makes a custom object fit its schema: unknown fields go, defaults come, metadata is what metadata is.

use serde_json::{Map, Value};

use super::Custom;
use crate::decode::{DecodeError, FieldValidation, decode_partial};
use crate::model::{Shape, Type};
use crate::table::builtin;
use crate::{Format, TypeRef};

const RESOURCE_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes what the schema does not know and answers the paths of what it removed, sorted.
pub fn prune(ty: &Type, value: &mut Value) -> Vec<String> {
    let mut gone = Vec::new();
    prune_at(ty, value, "", &mut gone);
    gone.sort_unstable();
    gone
}

fn step(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn custom(ty: &Type) -> Option<&Custom> {
    ty.custom.as_deref()
}

fn prune_at(ty: &Type, value: &mut Value, path: &str, gone: &mut Vec<String>) {
    let preserves = custom(ty).is_some_and(|custom| custom.preserves_unknown) || matches!(ty.shape, Shape::Deduced);
    let embedded = custom(ty).is_some_and(|custom| custom.embedded);
    match value {
        Value::Object(map) => map.retain(|key, child| {
            if embedded && RESOURCE_FIELDS.contains(&key.as_str()) {
                return true;
            }
            let place = step(path, key);
            let known = match &ty.shape {
                Shape::Struct { of, .. } => of.get().field(key).map(|field| &field.ty),
                Shape::Map { value, .. } => Some(value),
                _ => None,
            };
            match known {
                Some(known) => prune_at(known, child, &place, gone),
                None if preserves => {}
                None => gone.push(place),
            }
            known.is_some() || preserves
        }),
        Value::Array(list) => {
            let Shape::List { item, .. } = &ty.shape else { return };
            for (at, child) in list.iter_mut().enumerate() {
                prune_at(item, child, &format!("{path}[{at}]"), gone);
            }
        }
        _ => {}
    }
}

/// Sets the defaults of missing fields, and of nulls where null is not allowed; other such nulls go. Answers whether
/// anything changed.
pub fn fill_defaults(ty: &Type, value: &mut Value) -> bool {
    let mut changed = false;
    match (&ty.shape, value) {
        (Shape::Struct { of, .. }, Value::Object(map)) => {
            for field in &of.get().fields {
                let Some(own) = custom(&field.ty) else { continue };
                if let Some(default) = &own.default {
                    let missing = map.get(&*field.name).is_none_or(|have| have.is_null() && !own.nullable);
                    if missing {
                        map.insert(field.name.to_string(), default.clone());
                        changed = true;
                    }
                }
                if map.get(&*field.name).is_some_and(|have| have.is_null() && !own.nullable) {
                    map.remove(&*field.name);
                    changed = true;
                } else if let Some(child) = map.get_mut(&*field.name) {
                    changed |= fill_defaults(&field.ty, child);
                }
            }
        }
        (Shape::Map { value: ty, .. }, Value::Object(map)) => {
            for child in map.values_mut() {
                changed |= fill_element(ty, child);
            }
            let before = map.len();
            let is_nullable = custom(ty).is_none_or(|own| own.nullable);
            map.retain(|_, child| is_nullable || !child.is_null());
            changed |= map.len() != before;
        }
        (Shape::List { item, .. }, Value::Array(list)) => {
            for child in list {
                changed |= fill_element(item, child);
            }
        }
        _ => {}
    }
    changed
}

fn fill_element(ty: &TypeRef, child: &mut Value) -> bool {
    let mut changed = false;
    if let Some(own) = custom(ty).filter(|own| child.is_null() && !own.nullable)
        && let Some(default) = &own.default
    {
        *child = default.clone();
        changed = true;
    }
    fill_defaults(ty, child) || changed
}

/// Checks the metadata of an object and of every embedded one: unknown fields go and are answered by path. Metadata
/// of the wrong form is an error, except where `lenient`: there the fields that cannot be read go.
///
/// # Errors
/// The form of some metadata is wrong.
pub fn coerce_metadata(ty: &Type, value: &mut Value, lenient: bool) -> Result<Vec<String>, DecodeError> {
    let mut gone = Vec::new();
    coerce_at(ty, value, "", lenient, &mut gone)?;
    gone.sort_unstable();
    Ok(gone)
}

fn coerce_at(
    ty: &Type,
    value: &mut Value,
    path: &str,
    lenient: bool,
    gone: &mut Vec<String>,
) -> Result<(), DecodeError> {
    match value {
        Value::Object(map) => {
            let embedded = custom(ty).is_some_and(|custom| custom.embedded);
            if embedded {
                one_metadata(map, path, lenient, gone)?;
            }
            for (key, child) in map.iter_mut().filter(|(key, _)| !(embedded && key.as_str() == "metadata")) {
                if let Some(ty) = ty.child(key).filter(|ty| !matches!(ty.shape, Shape::Deduced)) {
                    coerce_at(ty, child, &step(path, key), lenient, gone)?;
                }
            }
        }
        Value::Array(list) => {
            let Some(item) = ty.item() else { return Ok(()) };
            for (at, child) in list.iter_mut().enumerate() {
                coerce_at(item, child, &format!("{path}[{at}]"), lenient, gone)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn one_metadata(
    map: &mut Map<String, Value>,
    path: &str,
    lenient: bool,
    gone: &mut Vec<String>,
) -> Result<(), DecodeError> {
    let Some(given) = map.get(METADATA).filter(|given| !given.is_null()).cloned() else { return Ok(()) };
    let Some(meta) = builtin().by_name("apimachinery.pkg.apis.meta.v1.ObjectMeta") else { return Ok(()) };
    let read = |value: &Value| {
        let body = serde_json::to_vec(value).unwrap_or_default();
        decode_partial(&meta, &body, Format::Json, FieldValidation::Warn)
    };
    let mut read_whole = read(&given);
    if let (true, Err(_), Some(fields)) = (lenient, &read_whole, given.as_object()) {
        let readable = fields.iter().filter(|(key, value)| read(&Value::Object(only(key, value))).is_ok());
        read_whole = read(&Value::Object(readable.map(|(key, value)| (key.clone(), value.clone())).collect()));
    }
    let decoded = read_whole?;
    for warning in decoded.warnings {
        let name = warning.trim_start_matches("unknown field \"").trim_end_matches('"').to_owned();
        gone.push(step(&step(path, METADATA), &name));
    }
    map.insert(METADATA.to_owned(), drop_nulls(decoded.value));
    Ok(())
}

const METADATA: &str = "metadata";

fn only(key: &str, value: &Value) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert(key.to_owned(), value.clone());
    map
}

fn drop_nulls(mut value: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    value
}

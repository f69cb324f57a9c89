//! Strategic merge: maps merge by key, lists by what the schema says, and `$` directives delete, replace and order.

use schema::{Patch, Type};
use serde_json::{Map, Value};

use crate::patch::go_print;

type Object = Map<String, Value>;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";

#[derive(Clone, Debug, PartialEq)]
pub enum MergeError {
    /// A directive with content that it cannot have: 400.
    Format(String),
    /// Contradictions that upstream answers with 500: a directive that does not exist, a missing merge key.
    Directive(String),
    /// The patch does not fit the schema or contradicts itself.
    Shape(String),
}

type Result<T> = std::result::Result<T, MergeError>;

fn shape<T>(why: impl Into<String>) -> Result<T> {
    Err(MergeError::Shape(why.into()))
}

/// Merges a patch into an object of a type; without a type every list is replaced.
pub fn merge(ty: Option<&Type>, mut target: Object, mut patch: Object) -> Result<Object> {
    match patch.remove(DIRECTIVE) {
        None => {}
        Some(Value::String(word)) if word == "replace" => return Ok(without_directives(patch)),
        Some(Value::String(word)) if word == "delete" => return Ok(Object::new()),
        Some(other) => {
            let word = go_print(&other);
            patch.insert(DIRECTIVE.into(), other);
            let map = go_print(&Value::Object(patch));
            return Err(MergeError::Directive(format!("unknown patch type: {word} in map: {map}")));
        }
    }
    retain_keys(&mut target, &mut patch)?;
    set_orders(ty, &mut target, &mut patch)?;
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_PRIMITIVES) {
            delete_primitives(&mut target, list, &value)?;
            continue;
        }
        let field = ty.and_then(|ty| ty.child(&key)).map(|child| &**child);
        let hint = ty.and_then(|ty| ty.field(&key)).map(|field| &field.patch);
        match (target.remove(&key), value) {
            (_, Value::Null) => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                target.insert(key, Value::Object(merge(field, old, new)?));
            }
            (Some(Value::Array(old)), Value::Array(new)) if hint.is_some_and(|hint| hint.merge) => {
                let merged = merge_list(field, hint, old, new)?;
                target.insert(key, Value::Array(merged));
            }
            (_, value) => {
                check_shape(field, &value)?;
                target.insert(key, plain(value));
            }
        }
    }
    Ok(target)
}

/// Maps and lists cannot take each other's place or a scalar's.
fn check_shape(ty: Option<&Type>, value: &Value) -> Result<()> {
    use schema::Shape;
    let what = match value {
        Value::Object(_) => "map",
        Value::Array(_) => "slice",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        _ => "int64",
    };
    match ty.map(|ty| &ty.shape) {
        Some(Shape::Struct { .. } | Shape::Map { .. }) if what != "map" => {
            shape(format!("cannot restore map from {what}"))
        }
        Some(Shape::List { .. }) if what != "slice" => shape(format!("cannot restore slice from {what}")),
        _ => Ok(()),
    }
}

/// `$retainKeys` clears every field of the object that it does not name.
fn retain_keys(target: &mut Object, patch: &mut Object) -> Result<()> {
    let keep = match patch.remove(RETAIN_KEYS) {
        None => return Ok(()),
        Some(Value::Array(keep)) => keep,
        Some(_) => return Err(MergeError::Format("invalid patch format of retainKeys".into())),
    };
    let named = |key: &str| keep.iter().any(|kept| kept == key);
    if patch.iter().any(|(key, value)| !key.starts_with('$') && !value.is_null() && !named(key)) {
        return Err(MergeError::Format("invalid patch format of retainKeys".into()));
    }
    target.retain(|key, _| named(key));
    Ok(())
}

fn delete_primitives(target: &mut Object, list: &str, gone: &Value) -> Result<()> {
    let Value::Array(gone) = gone else {
        return Err(MergeError::Format("invalid patch format of primitive list".into()));
    };
    if let Some(Value::Array(items)) = target.get_mut(list) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// Merges each list that the patch orders and puts it into that order; elements only the server has keep their place.
fn set_orders(ty: Option<&Type>, target: &mut Object, patch: &mut Object) -> Result<()> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let list = directive[SET_ORDER.len()..].to_owned();
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(MergeError::Format("invalid patch format of setElementOrder list".into()));
        };
        let field = ty.and_then(|ty| ty.child(&list)).map(|child| &**child);
        let hint = ty.and_then(|ty| ty.field(&list)).map(|field| &field.patch);
        if let Some(gone) = patch.remove(&format!("{DELETE_PRIMITIVES}{list}")) {
            delete_primitives(target, &list, &gone)?;
        }
        let new = match patch.remove(&list) {
            None => None,
            Some(Value::Array(new)) => Some(new),
            Some(Value::Null) => {
                target.remove(&list);
                continue;
            }
            Some(_) => return shape("cannot restore slice from map"),
        };
        let key = hint.and_then(|hint| hint.key.as_deref());
        if let Some(new) = &new {
            check_order(new, &order, key)?;
        }
        let old = match target.remove(&list) {
            Some(Value::Array(old)) => old,
            _ => Vec::new(),
        };
        let merged = match new {
            Some(new) => merge_list(field, hint, old.clone(), new)?,
            None => old.clone(),
        };
        if !merged.is_empty() {
            target.insert(list, Value::Array(arrange(merged, &order, &old, key)));
        }
    }
    Ok(())
}

/// The elements of the patch must occur in the ordering list, in its order.
fn check_order(new: &[Value], order: &[Value], key: Option<&str>) -> Result<()> {
    let mut rest = order.iter();
    for item in new.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        if !rest.any(|ordered| same(ordered, item, key)) {
            let (new, order) = (go_print(&Value::Array(new.to_vec())), go_print(&Value::Array(order.to_vec())));
            let why = format!("The order in patch list:\n{new}\n doesn't match $setElementOrder list:\n{order}\n");
            return Err(MergeError::Directive(why));
        }
    }
    Ok(())
}

fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) if a.is_object() => a.get(key).is_some() && a.get(key) == b.get(key),
        _ => a == b,
    }
}

fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|other| same(other, item, key))
}

fn merge_list(list: Option<&Type>, hint: Option<&Patch>, old: Vec<Value>, new: Vec<Value>) -> Result<Vec<Value>> {
    let item = list.and_then(Type::item).map(|item| &**item);
    let Some(key) = hint.and_then(|hint| hint.key.as_deref()) else {
        return merge_primitives(old, new);
    };
    let server = old.clone();
    let (mut merged, new) = apply_list_directives(old, new, key)?;
    for element in &new {
        let Value::Object(element) = element else {
            return shape(format!("unrecognized type: {}", if element.is_string() { "string" } else { "int64" }));
        };
        let Some(wanted) = element.get(key) else {
            let map = go_print(&Value::Object(element.clone()));
            return Err(MergeError::Directive(format!("map: {map} does not contain declared merge key: {key}")));
        };
        match merged.iter_mut().find(|have| have.get(key) == Some(wanted)) {
            Some(have @ Value::Object(_)) => {
                let Value::Object(old) = have.take() else { continue };
                *have = Value::Object(merge(item, old, element.clone())?);
            }
            _ => merged.push(Value::Object(merge(item, Object::new(), element.clone())?)),
        }
    }
    Ok(arrange(merged, &new, &server, Some(key)))
}

fn merge_primitives(old: Vec<Value>, new: Vec<Value>) -> Result<Vec<Value>> {
    if new.iter().any(|value| value.is_object() || value.is_array()) {
        let (old, new) = (go_print(&Value::Array(old)), go_print(&Value::Array(new)));
        return Err(MergeError::Directive(format!("list element types are not identical: [{old} {new}]")));
    }
    let mut merged: Vec<Value> = Vec::with_capacity(old.len() + new.len());
    for value in old.iter().chain(&new) {
        if !merged.contains(value) {
            merged.push(value.clone());
        }
    }
    Ok(arrange(merged, &new, &old, None))
}

/// Elements with `$patch: delete` remove their namesakes; one with `$patch: replace` makes the patch the whole list.
fn apply_list_directives(mut old: Vec<Value>, new: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut rest = Vec::with_capacity(new.len());
    let mut replace = false;
    for element in new {
        match element.get(DIRECTIVE).map(go_print).as_deref() {
            None => rest.push(element),
            Some("delete") => match element.get(key) {
                Some(name) => old.retain(|have| have.get(key) != Some(name)),
                None => return shape(format!("delete patch type with no merge key defined: {}", go_print(&element))),
            },
            Some("replace") => replace = true,
            Some("merge") => return shape("merging lists cannot yet be specified in the patch"),
            Some(word) => {
                let map = go_print(&element);
                return Err(MergeError::Directive(format!("unknown patch type: {word} in map: {map}")));
            }
        }
    }
    if replace {
        old.clear();
    }
    Ok((old, rest))
}

/// Orders a merged list: what the patch names follows the patch's order, what only the server has follows the server's,
/// and the two are interleaved by the server's order where it knows both.
fn arrange(merged: Vec<Value>, order: &[Value], server: &[Value], key: Option<&str>) -> Vec<Value> {
    let (mut named, mut others): (Vec<_>, Vec<_>) =
        merged.into_iter().partition(|item| position(order, item, key).is_some());
    named.sort_by_key(|item| position(order, item, key));
    others.sort_by_key(|item| position(server, item, key));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(left), Some(right)) = (others.peek(), named.peek()) {
        let before = match (position(server, left, key), position(server, right, key)) {
            (Some(left), Some(right)) => left < right,
            _ => false,
        };
        out.extend(if before { others.next() } else { named.next() });
    }
    out.extend(others);
    out.extend(named);
    out
}

/// A value taken from a patch as it is: its nulls and directives are not content.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives(map)),
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        other => other,
    }
}

fn without_directives(map: Object) -> Object {
    let is_directive = |key: &str| {
        key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_PRIMITIVES)
    };
    map.into_iter()
        .filter(|(key, value)| !value.is_null() && !is_directive(key))
        .map(|(key, value)| (key, plain(value)))
        .collect()
}

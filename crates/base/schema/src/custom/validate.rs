//! Validates a custom object against its type: the interpreter of [`Rules`], in upstream's words.

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::{Map, Value};

use super::before::Before;
use super::format;
use super::rules::{Bound, Range, Rules};
use crate::model::{ListKind, Shape, Type};

/// Every way in which an object breaks its schema.
pub fn validate(ty: &Type, value: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    typed(ty, value, Before::of(value, None), "", &mut errors);
    resources(ty, value, "", true, &mut errors);
    unique(ty, value, "", &mut errors);
    errors
}

/// The same for a change: what is unchanged at the nearest place whose former self can be told is not judged again, and
/// elements that were there twice may stay.
pub fn validate_change(ty: &Type, value: &Value, old: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    typed(ty, value, Before::of(value, Some(old)), "", &mut errors);
    resources(ty, value, "", true, &mut errors);
    let (mut twice, mut before) = (Vec::new(), Vec::new());
    unique(ty, value, "", &mut twice);
    if !twice.is_empty() {
        unique(ty, old, "", &mut before);
    }
    errors.extend(twice.into_iter().filter(|_| before.is_empty()));
    errors
}

fn place(path: &str) -> FieldPath {
    FieldPath::new(path.trim_start_matches('.'))
}

fn step(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A value with its shape: its own rules, then what is below.
fn typed(ty: &Type, value: &Value, before: Before<'_>, path: &str, errors: &mut FieldErrors) {
    if before.unchanged {
        return;
    }
    if let Some(custom) = &ty.custom {
        broken(&custom.rules, value, path, errors);
    }
    match (&ty.shape, value) {
        (Shape::Struct { of, atomic }, Value::Object(map)) => {
            for field in &of.get().fields {
                if let Some(child) = map.get(&*field.name) {
                    typed(
                        &field.ty,
                        child,
                        before.entry(&field.name, child, *atomic),
                        &step(path, &field.name),
                        errors,
                    );
                }
            }
        }
        (Shape::Map { value: ty, atomic }, Value::Object(map)) => {
            for (key, child) in map {
                typed(ty, child, before.entry(key, child, *atomic), &step(path, key), errors);
            }
        }
        (Shape::List { item, kind }, Value::Array(list)) => {
            for (at, child) in list.iter().enumerate() {
                typed(item, child, before.element(child, kind, item), &format!("{path}[{at}]"), errors);
            }
        }
        _ => {}
    }
}

/// Reports every rule that a value breaks, and the rules below it that have no shape.
fn broken(rules: &Rules, value: &Value, path: &str, errors: &mut FieldErrors) {
    types(rules, value, path, errors);
    if !value.is_null() {
        combinations(rules, value, path, errors);
        match value {
            Value::String(text) => texts(rules, text, path, errors),
            Value::Number(number) => numbers(rules, number, path, errors),
            Value::Array(list) => lists(rules, list, path, errors),
            Value::Object(map) => objects(rules, map, path, errors),
            _ => {}
        }
    }
    let accepted = rules.values.is_empty() || value.is_null() && rules.nullable;
    if !accepted && !rules.values.iter().any(|one| same(one, value)) {
        let shown: Vec<String> =
            rules.values.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
        errors.push(FieldError::unsupported(&place(path), value.clone(), &shown));
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b).is_eq(),
        _ => a == b,
    }
}

fn is_integer(number: &serde_json::Number) -> bool {
    number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn types(rules: &Rules, value: &Value, path: &str, errors: &mut FieldErrors) {
    if rules.types.is_empty() || value.is_null() && rules.nullable {
        return;
    }
    let found = type_name(value);
    let fits = rules.types.iter().any(|wanted| match (&**wanted, value) {
        ("number", Value::Number(_)) => true,
        ("integer", Value::Number(number)) => is_integer(number),
        (wanted, _) => wanted == found,
    });
    if !fits {
        let wanted = rules.types.join(",");
        let why = format!("{path} in body must be of type {wanted}: {found:?}");
        errors.push(FieldError::type_invalid(&place(path), found, &why));
    }
}

fn nowhere(why: &str) -> FieldError {
    FieldError::invalid(&FieldPath::default(), "", why)
}

fn complaints(rules: &Rules, value: &Value, path: &str) -> FieldErrors {
    let mut errors = Vec::new();
    broken(rules, value, path, &mut errors);
    errors
}

fn combinations(rules: &Rules, value: &Value, path: &str, errors: &mut FieldErrors) {
    // Of alternatives that all fail, the one that fails least explains the most.
    let try_all = |all: &[Rules]| -> Vec<FieldErrors> { all.iter().map(|one| complaints(one, value, path)).collect() };
    let nearest = |tried: Vec<FieldErrors>| tried.into_iter().min_by_key(Vec::len).unwrap_or_default();
    let tried = try_all(&rules.any_of);
    if !tried.is_empty() && !tried.iter().any(Vec::is_empty) {
        errors.push(nowhere(&format!("{path:?} must validate at least one schema (anyOf)")));
        errors.extend(nearest(tried));
    }
    let tried = try_all(&rules.one_of);
    if !tried.is_empty() {
        match tried.iter().filter(|errors| errors.is_empty()).count() {
            1 => {}
            0 => {
                let why = "must validate one and only one schema (oneOf). Found none valid";
                errors.push(nowhere(&format!("{path:?} {why}")));
                errors.extend(nearest(tried));
            }
            count => {
                let why = "must validate one and only one schema (oneOf). Found";
                errors.push(nowhere(&format!("{path:?} {why} {count} valid alternatives")));
            }
        }
    }
    let tried = try_all(&rules.all_of);
    if tried.iter().any(|errors| !errors.is_empty()) {
        let none = if tried.iter().all(|errors| !errors.is_empty()) { ". None validated" } else { "" };
        errors.extend(tried.into_iter().flatten());
        errors.push(nowhere(&format!("{path:?} must validate all the schemas (allOf){none}")));
    }
    if rules.not.as_ref().is_some_and(|not| complaints(not, value, path).is_empty()) {
        errors.push(nowhere(&format!("{path:?} must not validate the schema (not)")));
    }
}

fn texts(rules: &Rules, text: &str, path: &str, errors: &mut FieldErrors) {
    let length = text.chars().count() as u64;
    if let Some(max) = rules.length.max.filter(|max| length > *max) {
        errors.push(FieldError::too_long(&place(path), usize::try_from(max).unwrap_or(usize::MAX)));
    } else if let Some(min) = rules.length.min.filter(|min| length < *min) {
        let why = format!("{path} in body should be at least {min} chars long");
        errors.push(FieldError::invalid(&place(path), text, why));
    } else if let Some((pattern, _)) = rules.pattern.as_ref().filter(|(_, regex)| !regex.is_match(text)) {
        let why = format!("{path} in body should match '{pattern}'");
        errors.push(FieldError::invalid(&place(path), text, why));
    }
    let is_text = rules.types.is_empty() || rules.types.iter().any(|one| **one == *"string");
    if is_text && !format::matches(&rules.format, text) {
        let why = format!("{path} in body must be of type {}: {text:?}", rules.format);
        errors.push(FieldError::type_invalid(&place(path), text, &why));
    }
}

fn numbers(rules: &Rules, number: &serde_json::Number, path: &str, errors: &mut FieldErrors) {
    let Some(value) = number.as_f64() else { return };
    let fits = match (&*rules.types, &*rules.format) {
        ([one], "int32") if **one == *"integer" => {
            is_integer(number) && value >= f64::from(i32::MIN) && value <= f64::from(i32::MAX)
        }
        ([one], _) if **one == *"integer" => is_integer(number),
        _ => true,
    };
    if !fits {
        let form = match &*rules.format {
            known @ ("int32" | "int64") => format!("with format {known}"),
            _ => "(default format)".to_owned(),
        };
        errors.push(nowhere(&format!("Checked value must be of type integer {form} in {path}")));
    }
    let mut bad = |why: String| errors.push(FieldError::invalid(&place(path), number.clone(), why));
    if let Some(of) = rules.multiple_of.filter(|of| (value / of).fract() != 0.0) {
        bad(format!("{path} in body should be a multiple of {of}"));
    }
    if let Some(Bound { at, exclusive }) = rules.maximum
        && (value > at || exclusive && value >= at)
    {
        let or = if exclusive { "less than" } else { "less than or equal to" };
        bad(format!("{path} in body should be {or} {at}"));
    }
    if let Some(Bound { at, exclusive }) = rules.minimum
        && (value < at || exclusive && value <= at)
    {
        let or = if exclusive { "greater than" } else { "greater than or equal to" };
        bad(format!("{path} in body should be {or} {at}"));
    }
}

fn counted(range: Range, count: usize, what: &str, path: &str, errors: &mut FieldErrors) {
    if let Some(min) = range.min.filter(|min| (count as u64) < *min) {
        let why = format!("{path} in body should have at least {min} {what}");
        errors.push(FieldError::invalid(&place(path), count, why));
    }
    if let Some(max) = range.max.filter(|max| count as u64 > *max) {
        errors.push(FieldError::too_many(&place(path), count, usize::try_from(max).unwrap_or(usize::MAX)));
    }
}

fn lists(rules: &Rules, list: &[Value], path: &str, errors: &mut FieldErrors) {
    if let Some(element) = &rules.element {
        for (at, child) in list.iter().enumerate() {
            broken(element, child, &format!("{path}[{at}]"), errors);
        }
    }
    counted(rules.items, list.len(), "items", path, errors);
}

fn objects(rules: &Rules, map: &Map<String, Value>, path: &str, errors: &mut FieldErrors) {
    counted(rules.properties, map.len(), "properties", path, errors);
    if let Some(entry) = &rules.entry {
        for (key, child) in map {
            broken(entry, child, &step(path, key), errors);
        }
    }
    for (name, below) in &rules.fields {
        if let Some(child) = map.get(&**name) {
            broken(below, child, &step(path, name), errors);
        }
    }
    for name in rules.required.iter().filter(|name| !map.contains_key(&***name)) {
        errors.push(FieldError::required(&place(&format!("{path}.{name}")), ""));
    }
}

/// Embedded resources say what they are.
fn resources(ty: &Type, value: &Value, path: &str, root: bool, errors: &mut FieldErrors) {
    let embedded = ty.custom.as_ref().is_some_and(|custom| custom.embedded) && !root;
    match value {
        Value::Object(map) => {
            for name in ["apiVersion", "kind"].into_iter().filter(|_| embedded) {
                if map.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                    errors.push(FieldError::required(&place(&step(path, name)), ""));
                }
            }
            for (key, child) in map {
                if let Some(ty) = ty.child(key).filter(|ty| !matches!(ty.shape, Shape::Deduced)) {
                    resources(ty, child, &step(path, key), false, errors);
                }
            }
        }
        Value::Array(list) => {
            let Some(item) = ty.item() else { return };
            for (at, child) in list.iter().enumerate() {
                resources(item, child, &format!("{path}[{at}]"), false, errors);
            }
        }
        _ => {}
    }
}

/// Lists that apply takes for sets or maps have no element twice.
fn unique(ty: &Type, value: &Value, path: &str, errors: &mut FieldErrors) {
    match (&ty.shape, value) {
        (Shape::List { kind, item }, Value::Array(list)) => {
            let key = |value: &Value| match kind {
                ListKind::Set => Some(value.clone()),
                ListKind::Map(keys) => {
                    let default = |key: &str| item.field(key).and_then(|field| field.default.clone());
                    let named = keys.iter().filter_map(|key| {
                        let have = value.get(&**key).cloned().or_else(|| default(key));
                        have.map(|have| (key.to_string(), have))
                    });
                    Some(Value::Object(named.collect()))
                }
                _ => None,
            };
            let keys: Vec<Option<Value>> = list.iter().map(key).collect();
            for (at, child) in list.iter().enumerate() {
                let place_of = format!("{path}[{at}]");
                if keys[at].is_some() && keys[..at].contains(&keys[at]) {
                    errors.push(FieldError::duplicate(&place(&place_of), keys[at].clone().unwrap_or_default()));
                }
                unique(item, child, &place_of, errors);
            }
        }
        (Shape::Struct { .. } | Shape::Map { .. }, Value::Object(map)) => {
            for (key, child) in map {
                if let Some(ty) = ty.child(key).filter(|ty| ty.custom.is_some()) {
                    unique(ty, child, &step(path, key), errors);
                }
            }
        }
        _ => {}
    }
}

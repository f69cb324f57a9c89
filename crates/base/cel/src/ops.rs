//! Arithmetic, order and equality.

use std::cmp::Ordering;

use serde_json::Value as Json;

use crate::eval::{EvalError, Evaluated, fail, no_overload};
use crate::types::ListKind;
use crate::value::{Library, List, Map, Value};

const NANOS: i64 = 1_000_000_000;

/// Whether two values are the same; values of different types never are, numbers excepted.
pub fn equal(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::List(a), Value::List(b)) => equal_lists(a, b),
        (Value::Map(a), Value::Map(b)) => equal_maps(a, b),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b),
            (None, None) => true,
            _ => false,
        },
        (Value::Library(a), Value::Library(b)) => equal_library(a, b),
        (a, b) => numbers(a, b) == Some(Ordering::Equal),
    }
}

fn equal_library(a: &Library<'_>, b: &Library<'_>) -> bool {
    match (a, b) {
        (Library::Quantity(a), Library::Quantity(b)) => a == b,
        (Library::Ip(a), Library::Ip(b)) => a == b,
        (Library::Cidr(a, x), Library::Cidr(b, y)) => (a, x) == (b, y),
        (Library::Url(a), Library::Url(b)) => a.text == b.text,
        (Library::Semver(a, x), Library::Semver(b, y)) => (a, x) == (b, y),
        (Library::Format(a), Library::Format(b)) => a == b,
        _ => false,
    }
}

fn equal_lists(a: &List<'_>, b: &List<'_>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // What comes from JSON of which nothing is declared needs no values.
    let kind = if *a.kind() == ListKind::Atomic { b.kind() } else { a.kind() };
    match kind {
        ListKind::Atomic => a.iter().zip(b.iter()).all(|(a, b)| equal(&a, &b)),
        ListKind::Set => a.iter().all(|a| b.iter().any(|b| equal(&a, &b))),
        ListKind::Map(_) => a.iter().all(|a| b.iter().any(|b| equal(&a, &b))),
    }
}

fn equal_maps(a: &Map<'_>, b: &Map<'_>) -> bool {
    a.len() == b.len() && a.entries().iter().all(|(key, value)| b.get(key).is_some_and(|other| equal(value, &other)))
}

/// The order of two numbers of any type; none where one is no number.
fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(number) => Some(i128::from(*number)),
        Value::Uint(number) => Some(i128::from(*number)),
        _ => None,
    };
    #[allow(clippy::cast_precision_loss)]
    let real = |value: &Value<'_>| match value {
        Value::Double(number) => Some(*number),
        value => whole(value).map(|number| number as f64),
    };
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => real(a)?.partial_cmp(&real(b)?),
    }
}

/// The order of two values of one type.
pub fn order(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        (Value::Library(a), Value::Library(b)) => match (a.as_ref(), b.as_ref()) {
            (Library::Quantity(a), Library::Quantity(b)) => Some(a.cmp(b)),
            _ => None,
        },
        (a, b) => numbers(a, b),
    }
}

pub fn compare<'a>(a: &Value<'a>, b: &Value<'a>, fits: impl Fn(Ordering) -> bool) -> Evaluated<'a> {
    let nan = |value: &Value<'_>| matches!(value, Value::Double(number) if number.is_nan());
    match order(a, b) {
        Some(found) => Ok(Value::Bool(fits(found))),
        None if nan(a) || nan(b) => Ok(Value::Bool(false)),
        None => no_overload(),
    }
}

pub fn sort_by_key(entries: &mut [(Value<'_>, Value<'_>)]) -> Result<(), EvalError> {
    let comparable = entries.windows(2).all(|two| order(&two[0].0, &two[1].0).is_some());
    if !comparable {
        return fail("list elements must be comparable");
    }
    entries.sort_by(|a, b| order(&a.0, &b.0).unwrap_or(Ordering::Equal));
    Ok(())
}

fn whole<'a>(number: Option<i64>) -> Evaluated<'a> {
    number.map_or_else(|| fail("integer overflow"), |number| Ok(Value::Int(number)))
}

fn unsigned<'a>(number: Option<u64>) -> Evaluated<'a> {
    number.map_or_else(|| fail("unsigned integer overflow"), |number| Ok(Value::Uint(number)))
}

fn span(nanos: i64) -> jiff::SignedDuration {
    jiff::SignedDuration::from_nanos(nanos)
}

fn moved<'a>(at: Result<jiff::Timestamp, jiff::Error>) -> Evaluated<'a> {
    at.map_or_else(|_| fail("timestamp overflow"), |at| Ok(Value::Timestamp(at)))
}

pub fn add<'a>(a: &Value<'a>, b: &Value<'a>) -> Evaluated<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => whole(a.checked_add(*b)),
        (Value::Uint(a), Value::Uint(b)) => unsigned(a.checked_add(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => Ok(Value::string(format!("{a}{b}"))),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([a.as_ref(), b.as_ref()].concat().into())),
        (Value::Duration(a), Value::Duration(b)) => {
            a.checked_add(*b).map_or_else(|| fail("duration overflow"), |nanos| Ok(Value::Duration(nanos)))
        }
        (Value::Timestamp(at), Value::Duration(nanos)) | (Value::Duration(nanos), Value::Timestamp(at)) => {
            moved(at.checked_add(span(*nanos)))
        }
        (Value::List(a), Value::List(b)) => Ok(joined(a, b)),
        _ => no_overload(),
    }
}

/// Sets stay sets, and lists with keys take the right side's elements in place of their own.
fn joined<'a>(a: &List<'a>, b: &List<'a>) -> Value<'a> {
    let mut all: Vec<Value<'a>> = a.iter().collect();
    for item in b.iter() {
        let known = match a.kind() {
            ListKind::Atomic => None,
            ListKind::Set => all.iter().position(|known| equal(known, &item)),
            ListKind::Map(keys) => all.iter().position(|known| same_keys(known, &item, keys)),
        };
        match known {
            Some(at) => all[at] = item,
            None => all.push(item),
        }
    }
    Value::list(all)
}

fn same_keys(a: &Value<'_>, b: &Value<'_>, keys: &[String]) -> bool {
    let (Value::Map(a), Value::Map(b)) = (a, b) else { return false };
    keys.iter().all(|key| match (a.field(key), b.field(key)) {
        (Some(a), Some(b)) => equal(&a, &b),
        (None, None) => true,
        _ => false,
    })
}

pub fn subtract<'a>(a: &Value<'a>, b: &Value<'a>) -> Evaluated<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => whole(a.checked_sub(*b)),
        (Value::Uint(a), Value::Uint(b)) => unsigned(a.checked_sub(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => {
            a.checked_sub(*b).map_or_else(|| fail("duration overflow"), |nanos| Ok(Value::Duration(nanos)))
        }
        (Value::Timestamp(at), Value::Duration(nanos)) => moved(at.checked_sub(span(*nanos))),
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            let nanos = a.duration_since(*b).as_nanos();
            i64::try_from(nanos).map_or_else(|_| fail("duration overflow"), |nanos| Ok(Value::Duration(nanos)))
        }
        _ => no_overload(),
    }
}

pub fn multiply<'a>(a: &Value<'a>, b: &Value<'a>) -> Evaluated<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => whole(a.checked_mul(*b)),
        (Value::Uint(a), Value::Uint(b)) => unsigned(a.checked_mul(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        _ => no_overload(),
    }
}

pub fn divide<'a>(a: &Value<'a>, b: &Value<'a>) -> Evaluated<'a> {
    match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => fail("division by zero"),
        (Value::Int(a), Value::Int(b)) => whole(a.checked_div(*b)),
        (Value::Uint(a), Value::Uint(b)) => unsigned(a.checked_div(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => no_overload(),
    }
}

pub fn remainder<'a>(a: &Value<'a>, b: &Value<'a>) -> Evaluated<'a> {
    match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => fail("modulus by zero"),
        (Value::Int(a), Value::Int(b)) => whole(a.checked_rem(*b)),
        (Value::Uint(a), Value::Uint(b)) => unsigned(a.checked_rem(*b)),
        _ => no_overload(),
    }
}

pub fn negate<'a>(a: &Value<'a>) -> Evaluated<'a> {
    match a {
        Value::Int(a) => whole(a.checked_neg()),
        Value::Double(a) => Ok(Value::Double(-a)),
        Value::Duration(a) => Ok(Value::Duration(a.saturating_neg())),
        _ => no_overload(),
    }
}

/// `a in b`.
pub fn contains<'a>(item: &Value<'a>, of: &Value<'a>) -> Evaluated<'a> {
    match of {
        Value::List(List::Json { items, .. }) => {
            // The common case, texts among texts, makes no values.
            let found = match item {
                Value::String(text) => items.iter().any(|json| matches!(json, Json::String(one) if *one == **text)),
                _ => items.iter().any(|json| equal(&Value::json(json), item)),
            };
            Ok(Value::Bool(found))
        }
        Value::List(list) => Ok(Value::Bool(list.iter().any(|one| equal(&one, item)))),
        Value::Map(map) => Ok(Value::Bool(map.get(item).is_some())),
        _ => no_overload(),
    }
}

/// Hours, minutes, seconds or milliseconds of a duration.
pub fn of_duration(nanos: i64, unit: &str) -> i64 {
    match unit {
        "getHours" => nanos / NANOS / 3600,
        "getMinutes" => nanos / NANOS / 60,
        "getSeconds" => nanos / NANOS,
        _ => nanos / 1_000_000,
    }
}

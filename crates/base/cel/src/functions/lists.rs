//! Functions of lists.

use std::cmp::Ordering;

use super::{items, unknown};
use crate::eval::{Evaluated, fail, no_overload};
use crate::value::{List, Value};
use crate::{ops, strings};

/// `sets.contains(a, b)` and its kin, which take lists for sets.
pub fn sets(name: &str, a: &List<'_>, b: &List<'_>) -> bool {
    let has = |of: &List<'_>, item: &Value<'_>| of.iter().any(|one| ops::equal(&one, item));
    match name {
        "sets.contains" => b.iter().all(|item| has(a, &item)),
        "sets.intersects" => b.iter().any(|item| has(a, &item)),
        _ => a.iter().all(|item| has(b, &item)) && b.iter().all(|item| has(a, &item)),
    }
}

pub fn method<'a>(name: &str, list: &List<'a>, args: &[Value<'a>]) -> Evaluated<'a> {
    match (name, args) {
        ("isSorted", []) => {
            let all = items(list);
            let sorted = all.windows(2).all(|two| ops::order(&two[0], &two[1]).is_some_and(Ordering::is_le));
            Ok(Value::Bool(sorted))
        }
        ("sum", []) => {
            let mut all = list.iter();
            let Some(first) = all.next() else { return Ok(Value::Int(0)) };
            all.try_fold(first, |sum, item| ops::add(&sum, &item))
        }
        ("min", []) => extreme(list, "min", Ordering::Less),
        ("max", []) => extreme(list, "max", Ordering::Greater),
        ("indexOf", [item]) => Ok(place(list.iter().position(|one| ops::equal(&one, item)))),
        ("lastIndexOf", [item]) => Ok(place(items(list).iter().rposition(|one| ops::equal(one, item)))),
        ("join", _) => join(list, args),
        ("slice", [Value::Int(from), Value::Int(to)]) => slice(list, *from, *to),
        ("flatten", []) => Ok(Value::list(flat(list, 1))),
        ("flatten", [Value::Int(depth)]) if *depth >= 0 => Ok(Value::list(flat(list, *depth))),
        ("flatten", [Value::Int(_)]) => fail("level must be non-negative"),
        ("sort", []) => {
            let mut keyed: Vec<_> = list.iter().map(|item| (item.clone(), item)).collect();
            ops::sort_by_key(&mut keyed)?;
            Ok(Value::list(keyed.into_iter().map(|(_, item)| item).collect()))
        }
        ("reverse", []) => Ok(Value::list(items(list).into_iter().rev().collect())),
        ("distinct", []) => {
            let mut found: Vec<Value<'a>> = Vec::new();
            for item in list.iter() {
                if !found.iter().any(|known| ops::equal(known, &item)) {
                    found.push(item);
                }
            }
            Ok(Value::list(found))
        }
        ("first", []) => Ok(list.get(0).map_or(Value::Optional(None), Value::some)),
        ("last", []) => Ok(list.iter().last().map_or(Value::Optional(None), Value::some)),
        _ => unknown(),
    }
}

fn place<'a>(at: Option<usize>) -> Value<'a> {
    Value::Int(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn extreme<'a>(list: &List<'a>, name: &str, wanted: Ordering) -> Evaluated<'a> {
    let mut all = list.iter();
    let Some(mut best) = all.next() else { return fail(format!("{name} called on empty list")) };
    for item in all {
        match ops::order(&item, &best) {
            Some(found) if found == wanted => best = item,
            Some(_) => {}
            None => return no_overload(),
        }
    }
    Ok(best)
}

fn join<'a>(list: &List<'a>, args: &[Value<'a>]) -> Evaluated<'a> {
    let by = match args {
        [] => "",
        [Value::String(by)] => by,
        _ => return no_overload(),
    };
    let all = items(list);
    if !all.iter().all(|item| matches!(item, Value::String(_))) {
        return no_overload();
    }
    let all: Vec<String> = all.iter().map(strings::plain).collect();
    Ok(Value::string(all.join(by)))
}

fn slice<'a>(list: &List<'a>, from: i64, to: i64) -> Evaluated<'a> {
    let length = list.len();
    let place = |at: i64| usize::try_from(at).ok().filter(|at| *at <= length);
    match (place(from), place(to)) {
        (Some(start), Some(end)) if start <= end => Ok(Value::list(items(list)[start..end].to_vec())),
        _ => fail(format!("cannot slice({from}, {to}), list is length {length}")),
    }
}

fn flat<'a>(list: &List<'a>, depth: i64) -> Vec<Value<'a>> {
    let mut all = Vec::new();
    for item in list.iter() {
        match item {
            Value::List(inner) if depth > 0 => all.extend(flat(&inner, depth - 1)),
            other => all.push(other),
        }
    }
    all
}

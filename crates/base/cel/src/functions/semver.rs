//! Semantic versions.

use std::cmp::Ordering;

use super::unknown;
use crate::eval::{Evaluated, fail};
use crate::value::{Library, Value};

/// The three numbers and the parts of the pre-release.
fn parse(text: &str, lenient: bool) -> Option<([u64; 3], Vec<String>)> {
    let text = if lenient { text.strip_prefix('v').unwrap_or(text) } else { text };
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
    let named = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if build.is_some_and(|build| !build.split('.').all(named)) {
        return None;
    }
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts: Vec<&str> = core.split('.').collect();
    while lenient && parts.len() < 3 {
        parts.push("0");
    }
    let number = |part: &&str| {
        let padded = part.len() > 1 && part.starts_with('0') && !lenient;
        (is_number(part) && !padded).then(|| part.parse().ok()).flatten()
    };
    let numbers: Option<Vec<u64>> = parts.iter().map(number).collect();
    let numbers: [u64; 3] = numbers?.try_into().ok()?;
    let pre: Vec<String> = pre.into_iter().flat_map(|pre| pre.split('.')).map(str::to_owned).collect();
    let fits = pre.iter().all(|part| named(part) && !(is_number(part) && part.len() > 1 && part.starts_with('0')));
    fits.then_some((numbers, pre))
}

pub fn function<'a>(name: &str, text: &str, lenient: bool) -> Evaluated<'a> {
    match (parse(text, lenient), name) {
        (found, "isSemver") => Ok(Value::Bool(found.is_some())),
        (Some((numbers, pre)), _) => Ok(Value::library(Library::Semver(numbers, pre))),
        (None, _) => fail(format!("Invalid character(s) found in version {text:?}")),
    }
}

fn order(a: (&[u64; 3], &[String]), b: (&[u64; 3], &[String])) -> Ordering {
    let by_numbers = a.0.cmp(b.0);
    if by_numbers != Ordering::Equal {
        return by_numbers;
    }
    match (a.1, b.1) {
        ([], []) => Ordering::Equal,
        // A release is above its pre-releases.
        ([], _) => Ordering::Greater,
        (_, []) => Ordering::Less,
        (a, b) => {
            let parts = a.iter().zip(b).map(|(a, b)| match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => a.cmp(b),
            });
            parts.into_iter().find(|found| *found != Ordering::Equal).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
    }
}

pub fn method<'a>(numbers: &[u64; 3], pre: &[String], name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    let part = |at: usize| Ok(Value::Int(i64::try_from(numbers[at]).unwrap_or(i64::MAX)));
    let compared = match args {
        [Value::Library(other)] => match other.as_ref() {
            Library::Semver(other, other_pre) => Some(order((numbers, pre), (other, other_pre))),
            _ => None,
        },
        _ => None,
    };
    match (name, compared) {
        ("major", None) => part(0),
        ("minor", None) => part(1),
        ("patch", None) => part(2),
        ("isGreaterThan", Some(found)) => Ok(Value::Bool(found.is_gt())),
        ("isLessThan", Some(found)) => Ok(Value::Bool(found.is_lt())),
        ("compareTo", Some(found)) => Ok(Value::Int(found as i64)),
        _ => unknown(),
    }
}

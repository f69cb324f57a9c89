//! What functions and methods answer.

mod lists;
mod net;
mod semver;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use meta::names;
use meta::quantity::Quantity;

use crate::eval::{EvalError, Evaluated, Machine, fail, index, no_overload};
use crate::value::{Library, List, Map, Value};
use crate::{ops, strings, time};

/// Calls a function; the target of a method is its first argument.
pub fn call<'a>(machine: &Machine<'_, 'a>, name: &str, is_method: bool, args: Vec<Value<'a>>) -> Evaluated<'a> {
    if is_method {
        return method(machine, name, &args);
    }
    match (name, args.as_slice()) {
        ("!_", [Value::Bool(flag)]) => Ok(Value::Bool(!flag)),
        ("-_", [a]) => ops::negate(a),
        ("_==_", [a, b]) => Ok(Value::Bool(ops::equal(a, b))),
        ("_!=_", [a, b]) => Ok(Value::Bool(!ops::equal(a, b))),
        ("_<_", [a, b]) => ops::compare(a, b, Ordering::is_lt),
        ("_<=_", [a, b]) => ops::compare(a, b, Ordering::is_le),
        ("_>_", [a, b]) => ops::compare(a, b, Ordering::is_gt),
        ("_>=_", [a, b]) => ops::compare(a, b, Ordering::is_ge),
        ("_+_", [a, b]) => {
            machine.pay((size(a).unwrap_or(0) + size(b).unwrap_or(0)) / 10)?;
            ops::add(a, b)
        }
        ("_-_", [a, b]) => ops::subtract(a, b),
        ("_*_", [a, b]) => ops::multiply(a, b),
        ("_/_", [a, b]) => ops::divide(a, b),
        ("_%_", [a, b]) => ops::remainder(a, b),
        ("@in", [item, of]) => {
            machine.pay(size(of).unwrap_or(0) / 4)?;
            ops::contains(item, of)
        }
        ("_[_]", [of, at]) => index(of, at, false),
        ("_[?_]", [of, at]) => index(of, at, true),
        ("size", [of]) => sized(of),
        ("type", [of]) => Ok(Value::Type(Cow::Owned(of.type_name().to_owned()))),
        ("dyn", [of]) => Ok(of.clone()),
        ("matches", [_, _]) => strings::method(machine, "matches", &args).unwrap_or_else(no_overload),
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [Value::List(a), Value::List(b)]) => {
            machine.pay(a.len().saturating_mul(b.len()))?;
            Ok(Value::Bool(lists::sets(name, a, b)))
        }
        ("strings.quote", [Value::String(text)]) => Ok(Value::string(format!("{text:?}"))),
        ("jsonpatch.escapeKey", [Value::String(text)]) => Ok(Value::string(text.replace('~', "~0").replace('/', "~1"))),
        ("lists.range", [Value::Int(count)]) => {
            machine.pay(usize::try_from(*count).unwrap_or(0))?;
            Ok(Value::list((0..*count).map(Value::Int).collect()))
        }
        ("optional.of", [of]) => Ok(Value::some(of.clone())),
        ("optional.none", []) => Ok(Value::Optional(None)),
        ("optional.ofNonZeroValue", [of]) => {
            Ok(if is_zero(of) { Value::Optional(None) } else { Value::some(of.clone()) })
        }
        (name, [one]) => conversion(name, one).unwrap_or_else(|| library(name, &args)),
        (name, _) => library(name, &args),
    }
}

fn size(value: &Value<'_>) -> Option<usize> {
    Some(match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        _ => return None,
    })
}

fn sized<'a>(of: &Value<'a>) -> Evaluated<'a> {
    let count = match of {
        Value::String(text) => Some(text.chars().count()),
        other => size(other),
    };
    count.map_or_else(no_overload, |count| Ok(Value::Int(i64::try_from(count).unwrap_or(i64::MAX))))
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Duration(0) => true,
        Value::Double(number) => *number == 0.0,
        other => size(other) == Some(0),
    }
}

/// `int(x)` and its kin; `None` where the name is another function's.
fn conversion<'a>(name: &str, of: &Value<'a>) -> Option<Evaluated<'a>> {
    Some(match name {
        "int" => to_int(of),
        "uint" => to_uint(of),
        "double" => to_double(of),
        "string" => match of {
            Value::String(_) => Ok(of.clone()),
            Value::Bytes(bytes) => match String::from_utf8(bytes.to_vec()) {
                Ok(text) => Ok(Value::string(text)),
                Err(_) => fail("invalid UTF-8 in bytes, cannot convert to string"),
            },
            Value::Library(library) => match library.as_ref() {
                Library::Ip(ip) => Ok(Value::string(ip.to_string())),
                Library::Cidr(ip, prefix) => Ok(Value::string(format!("{ip}/{prefix}"))),
                _ => no_overload(),
            },
            Value::List(_) | Value::Map(_) | Value::Optional(_) | Value::Null => no_overload(),
            other => Ok(Value::string(strings::plain(other))),
        },
        "bytes" => match of {
            Value::Bytes(_) => Ok(of.clone()),
            Value::String(text) => Ok(Value::Bytes(text.as_bytes().into())),
            _ => no_overload(),
        },
        "bool" => match of {
            Value::Bool(_) => Ok(of.clone()),
            Value::String(text) => match text.as_ref() {
                "true" | "TRUE" | "True" | "t" | "1" => Ok(Value::Bool(true)),
                "false" | "FALSE" | "False" | "f" | "0" => Ok(Value::Bool(false)),
                _ => fail("type conversion error from 'string' to 'bool'"),
            },
            _ => no_overload(),
        },
        "duration" => match of {
            Value::Duration(_) => Ok(of.clone()),
            Value::Int(nanos) => Ok(Value::Duration(*nanos)),
            Value::String(text) => time::duration(text).map_or_else(
                || fail("type conversion error from 'string' to 'google.protobuf.Duration'"),
                |nanos| Ok(Value::Duration(nanos)),
            ),
            _ => no_overload(),
        },
        "timestamp" => match of {
            Value::Timestamp(_) => Ok(of.clone()),
            Value::Int(seconds) => jiff::Timestamp::from_second(*seconds)
                .map_or_else(|_| fail("timestamp overflow"), |at| Ok(Value::Timestamp(at))),
            Value::String(text) => time::timestamp(text).map_or_else(
                || fail("type conversion error from 'string' to 'google.protobuf.Timestamp'"),
                |at| Ok(Value::Timestamp(at)),
            ),
            _ => no_overload(),
        },
        _ => return None,
    })
}

fn to_int<'a>(of: &Value<'a>) -> Evaluated<'a> {
    let number = match of {
        Value::Int(number) => Some(*number),
        Value::Uint(number) => i64::try_from(*number).ok(),
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
        Value::Double(number) => (number.abs() < i64::MAX as f64).then_some(*number as i64),
        Value::Timestamp(at) => Some(at.as_second()),
        Value::Duration(nanos) => Some(*nanos),
        Value::String(text) => match text.parse() {
            Ok(number) => Some(number),
            Err(_) => return fail(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")),
        },
        _ => return no_overload(),
    };
    number.map_or_else(|| fail("integer overflow"), |number| Ok(Value::Int(number)))
}

fn to_uint<'a>(of: &Value<'a>) -> Evaluated<'a> {
    let number = match of {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::Uint(number) => Some(*number),
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
        Value::Double(number) => (*number >= 0.0 && *number < u64::MAX as f64).then_some(*number as u64),
        Value::String(text) => match text.parse() {
            Ok(number) => Some(number),
            Err(_) => return fail(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")),
        },
        _ => return no_overload(),
    };
    number.map_or_else(|| fail("unsigned integer overflow"), |number| Ok(Value::Uint(number)))
}

fn to_double<'a>(of: &Value<'a>) -> Evaluated<'a> {
    #[allow(clippy::cast_precision_loss)]
    let number = match of {
        Value::Int(number) => *number as f64,
        Value::Uint(number) => *number as f64,
        Value::Double(number) => *number,
        Value::String(text) => match text.parse() {
            Ok(number) => number,
            Err(_) => return fail(format!("strconv.ParseFloat: parsing {text:?}: invalid syntax")),
        },
        _ => return no_overload(),
    };
    Ok(Value::Double(number))
}

/// Functions of Kubernetes' libraries.
fn library<'a>(name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    if name == "format.named" {
        let Some(Value::String(wanted)) = args.first() else { return no_overload() };
        let known = FORMATS.contains(&wanted.as_ref());
        let format = Value::library(Library::Format(wanted.to_string()));
        return Ok(if known { Value::some(format) } else { Value::Optional(None) });
    }
    if let Some(format) = name.strip_prefix("format.") {
        return Ok(Value::library(Library::Format(format.to_owned())));
    }
    let Some(Value::String(text)) = args.first() else { return no_overload() };
    match name {
        "quantity" => match text.parse::<Quantity>() {
            Ok(quantity) => Ok(Value::library(Library::Quantity(quantity))),
            Err(error) => fail(error.to_string()),
        },
        "isQuantity" => Ok(Value::Bool(text.parse::<Quantity>().is_ok())),
        "semver" | "isSemver" => semver::function(name, text, matches!(args.get(1), Some(Value::Bool(true)))),
        _ => net::function(name, text),
    }
}

fn method<'a>(machine: &Machine<'_, 'a>, name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    if let Some(found) = strings::method(machine, name, args) {
        return found;
    }
    match (&args[0], name, &args[1..]) {
        (Value::Timestamp(at), _, []) => part(*at, "", name),
        (Value::Timestamp(at), _, [Value::String(zone)]) => part(*at, zone, name),
        (Value::Duration(nanos), _, []) => Ok(Value::Int(ops::of_duration(*nanos, name))),
        (Value::Optional(of), "hasValue", []) => Ok(Value::Bool(of.is_some())),
        (Value::Optional(of), "value", []) => {
            of.as_ref().map_or_else(|| fail("optional.none() dereference"), |value| Ok(value.as_ref().clone()))
        }
        (of, "size", []) => sized(of),
        (Value::List(list), _, rest) => {
            machine.pay(list.len())?;
            lists::method(name, list, rest)
        }
        (Value::Library(library), _, rest) => library_method(library, name, rest),
        _ => no_overload(),
    }
}

fn part<'a>(at: jiff::Timestamp, zone: &str, what: &str) -> Evaluated<'a> {
    time::part(at, zone, what).map_or_else(|| fail(format!("unknown time zone {zone}")), |part| Ok(Value::Int(part)))
}

fn library_method<'a>(library: &Rc<Library<'a>>, name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    match library.as_ref() {
        Library::Quantity(quantity) => quantity_method(*quantity, name, args),
        Library::Semver(numbers, pre) => semver::method(numbers, pre, name, args),
        Library::Format(format) => match args {
            [Value::String(text)] if name == "validate" => {
                let wrong = format_errors(format, text);
                let wrong: Vec<Value<'_>> = wrong.into_iter().map(Value::string).collect();
                Ok(if wrong.is_empty() { Value::Optional(None) } else { Value::some(Value::list(wrong)) })
            }
            _ => no_overload(),
        },
        Library::Access(access, question) => {
            let texts: Vec<&str> = args.iter().filter_map(Value::as_str).collect();
            let mut asked = question.clone();
            match (name, texts.as_slice()) {
                ("path", [path]) => asked.path = Some((*path).to_owned()),
                ("group", [group]) => (*group).clone_into(&mut asked.group),
                ("serviceAccount", [namespace, name]) => {
                    asked.service_account = Some(((*namespace).to_owned(), (*name).to_owned()));
                }
                ("resource", [text]) => (*text).clone_into(&mut asked.resource),
                ("subresource", [text]) => (*text).clone_into(&mut asked.subresource),
                ("namespace", [text]) => (*text).clone_into(&mut asked.namespace),
                ("name", [text]) => (*text).clone_into(&mut asked.name),
                ("fieldSelector", [text]) => (*text).clone_into(&mut asked.field_selector),
                ("labelSelector", [text]) => (*text).clone_into(&mut asked.label_selector),
                ("check", [verb]) => {
                    (*verb).clone_into(&mut asked.verb);
                    return Ok(Value::library(Library::Answer(access.check(&asked))));
                }
                _ => return no_overload(),
            }
            Ok(Value::library(Library::Access(*access, asked)))
        }
        Library::Answer(answer) => match name {
            "allowed" => Ok(Value::Bool(answer.allowed)),
            "errored" => Ok(Value::Bool(!answer.error.is_empty())),
            "reason" => Ok(Value::string(answer.reason.as_str())),
            "error" => Ok(Value::string(answer.error.as_str())),
            _ => no_overload(),
        },
        _ => net::method(library, name, args),
    }
}

fn quantity_method<'a>(quantity: Quantity, name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    let other = match args {
        [Value::Library(other)] => match other.as_ref() {
            Library::Quantity(other) => Some(*other),
            _ => None,
        },
        [Value::Int(units)] => Some(Quantity::from_units(*units, quantity.format())),
        _ => None,
    };
    let sign = |ordering: Ordering| Value::Int(ordering as i64);
    #[allow(clippy::cast_precision_loss)]
    match (name, other) {
        ("sign", None) => Ok(sign(quantity.cmp(&Quantity::default()))),
        ("isInteger", None) => Ok(Value::Bool(quantity.is_whole())),
        ("asInteger", None) if quantity.is_whole() => Ok(Value::Int(quantity.value())),
        ("asInteger", None) => fail("cannot convert value to integer"),
        ("asApproximateFloat", None) => Ok(Value::Double(quantity.milli_value() as f64 / 1000.0)),
        ("isGreaterThan", Some(other)) => Ok(Value::Bool(quantity > other)),
        ("isLessThan", Some(other)) => Ok(Value::Bool(quantity < other)),
        ("compareTo", Some(other)) => Ok(sign(quantity.cmp(&other))),
        ("add", Some(other)) => Ok(Value::library(Library::Quantity(quantity + other))),
        ("sub", Some(other)) => Ok(Value::library(Library::Quantity(quantity - other))),
        _ => no_overload(),
    }
}

const FORMATS: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

/// What is wrong with a text of a format.
fn format_errors(format: &str, text: &str) -> Vec<String> {
    use base64::Engine as _;
    let prefix = |text: &str| text.strip_suffix('-').map_or_else(|| text.to_owned(), |rest| format!("{rest}a"));
    let wrong = |fits: bool, why: &str| if fits { Vec::new() } else { vec![why.to_owned()] };
    match format {
        "dns1123Label" => names::dns_label(text),
        "dns1123Subdomain" => names::dns_subdomain(text),
        "dns1035Label" => names::dns1035_label(text),
        "qualifiedName" => names::qualified_name(text),
        "dns1123LabelPrefix" => names::dns_label(&prefix(text)),
        "dns1123SubdomainPrefix" => names::dns_subdomain(&prefix(text)),
        "dns1035LabelPrefix" => names::dns1035_label(&prefix(text)),
        "labelValue" => names::label_value(text),
        "uri" => wrong(net::url(text).is_some(), "invalid URI"),
        "uuid" => wrong(is_uuid(text), "does not match the UUID format"),
        "byte" => wrong(base64::engine::general_purpose::STANDARD.decode(text).is_ok(), "invalid base64"),
        "date" => wrong(text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10, "invalid date"),
        _ => wrong(time::timestamp(text).is_some(), "invalid datetime"),
    }
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let is_hex = parts.iter().all(|part| part.chars().all(|c| c.is_ascii_hexdigit()));
    is_hex && (lengths == [8, 4, 4, 4, 12] || lengths == [32])
}

/// Elements of a list, for functions that need them all.
fn items<'a>(list: &List<'a>) -> Vec<Value<'a>> {
    list.iter().collect()
}

/// The entries of a map of texts.
fn texts<'a>(entries: impl IntoIterator<Item = (String, Vec<String>)>) -> Value<'a> {
    let entry = |(key, values): (String, Vec<String>)| {
        (Value::string(key), Value::list(values.into_iter().map(Value::string).collect()))
    };
    Value::Map(Map::Own(Rc::new(entries.into_iter().map(entry).collect())))
}

/// What every library says to a call that it does not know.
fn unknown<'a>() -> Result<Value<'a>, EvalError> {
    no_overload()
}

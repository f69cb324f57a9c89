//! Methods of texts. Places are counted in characters.

use crate::eval::{EvalError, Evaluated, Machine, fail, no_overload};
use crate::time;
use crate::value::Value;

/// A value as `string()` and `%s` print it.
pub fn plain(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => double(*number),
        Value::String(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Duration(nanos) => time::show_duration(*nanos),
        Value::Timestamp(at) => time::show_timestamp(*at),
        Value::Type(name) => name.to_string(),
        Value::List(list) => {
            let all: Vec<String> = list.iter().map(|item| nested(&item)).collect();
            format!("[{}]", all.join(", "))
        }
        Value::Map(map) => {
            let mut all: Vec<String> =
                map.entries().iter().map(|(key, value)| format!("{}: {}", nested(key), nested(value))).collect();
            all.sort_unstable();
            format!("{{{}}}", all.join(", "))
        }
        Value::Optional(_) | Value::Library(_) => value.type_name().to_owned(),
    }
}

/// As Go prints a float in its shortest form.
fn double(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e21).contains(&size) {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or_default();
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    number.to_string()
}

fn nested(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => plain(other),
    }
}

fn number(value: usize) -> Value<'static> {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

/// A place in a text of this many characters.
fn place(at: i64, length: usize) -> Result<usize, EvalError> {
    let found = usize::try_from(at).ok().filter(|at| *at <= length);
    found.map_or_else(|| fail(format!("index out of range: {at}")), Ok)
}

/// Methods whose target is a text; `None` where there is no such method for these arguments.
pub fn method<'a>(machine: &Machine<'_, 'a>, name: &str, args: &[Value<'a>]) -> Option<Evaluated<'a>> {
    let Value::String(text) = &args[0] else { return None };
    if machine.pay(text.len() / 10).is_err() {
        return Some(machine.pay(1).map(|()| Value::Null));
    }
    let found = match (name, &args[1..]) {
        ("contains", [Value::String(part)]) => Ok(Value::Bool(text.contains(part.as_ref()))),
        ("startsWith", [Value::String(part)]) => Ok(Value::Bool(text.starts_with(part.as_ref()))),
        ("endsWith", [Value::String(part)]) => Ok(Value::Bool(text.ends_with(part.as_ref()))),
        ("matches", [Value::String(pattern)]) => machine.regex(pattern).map(|regex| Value::Bool(regex.is_match(text))),
        ("size", []) => Ok(number(text.chars().count())),
        ("charAt", [Value::Int(at)]) => place(*at, text.chars().count())
            .map(|at| Value::string(text.chars().nth(at).map(String::from).unwrap_or_default())),
        ("lowerAscii", []) => Ok(Value::string(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Value::string(text.to_ascii_uppercase())),
        ("trim", []) => Ok(Value::string(text.trim())),
        ("reverse", []) => Ok(Value::string(text.chars().rev().collect::<String>())),
        ("indexOf", [Value::String(part)]) => index_of(text, part, 0),
        ("indexOf", [Value::String(part), Value::Int(from)]) => index_of(text, part, *from),
        ("lastIndexOf", [Value::String(part)]) => last_index_of(text, part, None),
        ("lastIndexOf", [Value::String(part), Value::Int(from)]) => last_index_of(text, part, Some(*from)),
        ("replace", [Value::String(from), Value::String(to)]) => Ok(Value::string(text.replace(from.as_ref(), to))),
        ("replace", [Value::String(from), Value::String(to), Value::Int(count)]) => {
            let count = usize::try_from(*count).unwrap_or(usize::MAX);
            Ok(Value::string(text.replacen(from.as_ref(), to, count)))
        }
        ("split", [Value::String(by)]) => Ok(split(text, by, -1)),
        ("split", [Value::String(by), Value::Int(count)]) => Ok(split(text, by, *count)),
        ("substring", [Value::Int(from)]) => substring(text, *from, None),
        ("substring", [Value::Int(from), Value::Int(to)]) => substring(text, *from, Some(*to)),
        ("format", [Value::List(values)]) => format(text, &values.iter().collect::<Vec<_>>()).map(Value::string),
        ("find", [Value::String(pattern)]) => machine
            .regex(pattern)
            .map(|regex| Value::string(regex.find(text).map(|found| found.as_str().to_owned()).unwrap_or_default())),
        ("findAll", [Value::String(pattern)]) => find_all(machine, text, pattern, -1),
        ("findAll", [Value::String(pattern), Value::Int(count)]) => find_all(machine, text, pattern, *count),
        _ => return None,
    };
    Some(found)
}

fn find_all<'a>(machine: &Machine<'_, 'a>, text: &str, pattern: &str, count: i64) -> Evaluated<'a> {
    let regex = machine.regex(pattern)?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    Ok(Value::list(regex.find_iter(text).take(count).map(|found| Value::string(found.as_str())).collect()))
}

fn index_of<'a>(text: &str, part: &str, from: i64) -> Evaluated<'a> {
    let chars: Vec<char> = text.chars().collect();
    let part: Vec<char> = part.chars().collect();
    let from = place(from, chars.len())?;
    if part.is_empty() {
        return Ok(number(from));
    }
    let found = chars[from..].windows(part.len()).position(|window| window == part);
    Ok(found.map_or(Value::Int(-1), |at| number(from + at)))
}

fn last_index_of<'a>(text: &str, part: &str, from: Option<i64>) -> Evaluated<'a> {
    let chars: Vec<char> = text.chars().collect();
    let part: Vec<char> = part.chars().collect();
    let from = from.map_or(Ok(chars.len()), |from| place(from, chars.len()))?;
    if part.is_empty() {
        return Ok(number(from));
    }
    let found = chars.windows(part.len()).enumerate().rev().find(|(at, window)| *at <= from && *window == part);
    Ok(found.map_or(Value::Int(-1), |(at, _)| number(at)))
}

fn split<'a>(text: &str, by: &str, count: i64) -> Value<'a> {
    let all: Vec<String> = match count {
        0 => Vec::new(),
        _ if by.is_empty() => text.chars().map(String::from).collect(),
        count if count < 0 => text.split(by).map(str::to_owned).collect(),
        count => text.splitn(usize::try_from(count).unwrap_or(usize::MAX), by).map(str::to_owned).collect(),
    };
    Value::list(all.into_iter().map(Value::string).collect())
}

fn substring<'a>(text: &str, from: i64, to: Option<i64>) -> Evaluated<'a> {
    let chars: Vec<char> = text.chars().collect();
    let to = to.map_or(Ok(chars.len()), |to| place(to, chars.len()))?;
    let start = place(from, chars.len())?;
    if start > to {
        return fail(format!("invalid substring range. start: {from}, end: {to}"));
    }
    Ok(Value::string(chars[start..to].iter().collect::<String>()))
}

/// `%s`, `%d`, `%f`, `%e`, `%b`, `%x`, `%X`, `%o` and `%%`.
fn format(text: &str, values: &[Value<'_>]) -> Result<String, EvalError> {
    let mut out = String::with_capacity(text.len());
    let mut values = values.iter();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            precision = digits.parse::<usize>().ok();
        }
        let Some(verb) = chars.next() else { return fail("unexpected end of format string") };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else { return fail("index 0 out of range") };
        out.push_str(&clause(verb, precision.unwrap_or(6), value)?);
    }
    Ok(out)
}

fn clause(verb: char, precision: usize, value: &Value<'_>) -> Result<String, EvalError> {
    #[allow(clippy::cast_precision_loss)]
    let real = |value: &Value<'_>| match value {
        Value::Double(number) => Some(*number),
        Value::Int(number) => Some(*number as f64),
        Value::Uint(number) => Some(*number as f64),
        _ => None,
    };
    let whole = |value: &Value<'_>| match value {
        Value::Int(number) => Some(i128::from(*number)),
        Value::Uint(number) => Some(i128::from(*number)),
        Value::Bool(flag) => Some(i128::from(*flag)),
        _ => None,
    };
    let signed = |number: i128, digits: String| if number < 0 { format!("-{digits}") } else { digits };
    let shown = match verb {
        's' => Some(plain(value)),
        'd' => match value {
            Value::Double(number) => Some(double(*number)),
            value => whole(value).map(|number| number.to_string()),
        },
        'f' => real(value).map(|number| format!("{number:.precision$}")),
        'e' => real(value).map(|number| exponent(number, precision)),
        'b' => whole(value).map(|number| signed(number, format!("{:b}", number.unsigned_abs()))),
        'o' => whole(value).map(|number| signed(number, format!("{:o}", number.unsigned_abs()))),
        'x' | 'X' => {
            let hex = match value {
                Value::String(text) => Some(text.bytes().map(|byte| format!("{byte:02x}")).collect()),
                Value::Bytes(bytes) => Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
                value => whole(value).map(|number| signed(number, format!("{:x}", number.unsigned_abs()))),
            };
            hex.map(|hex| if verb == 'X' { hex.to_uppercase() } else { hex })
        }
        other => return fail(format!("could not parse formatting clause: unrecognized formatting clause {other:?}")),
    };
    shown.map_or_else(no_overload, Ok)
}

fn exponent(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

//! The table cells of custom objects, read by the simple JSON paths of `additionalPrinterColumns`.

use kinds::columns::since;
use serde_json::{Value, json};

/// One column of a custom kind's table.
#[derive(Clone, Debug)]
pub struct PrinterColumn {
    pub name: String,
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    path: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Each,
    /// Elements whose field at the path has this value.
    Where(Vec<Step>, Value),
}

impl PrinterColumn {
    pub fn new(column: &Value) -> Self {
        let text = |key: &str| column[key].as_str().unwrap_or_default().to_owned();
        Self {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description: text("description"),
            priority: column["priority"].as_i64().unwrap_or_default(),
            path: parse(&text("jsonPath")),
        }
    }

    /// The column of a kind that defines none.
    pub fn age() -> Self {
        const ABOUT: &str = "When the server created the object.";
        Self::new(
            &json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": ABOUT}),
        )
    }

    pub fn definition(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format,
            "description": self.description, "priority": self.priority})
    }

    pub fn cell(&self, object: &Value, now: i64) -> Value {
        let Some(found) = find(object, &self.path).into_iter().next() else { return Value::Null };
        match (self.kind.as_str(), found) {
            ("string", Value::String(text)) => text.as_str().into(),
            ("string", Value::Null) => Value::Null,
            ("string", other) => other.to_string().into(),
            ("date", time @ Value::String(_)) => since(time, now),
            ("integer", Value::Number(number)) => {
                #[allow(clippy::cast_possible_truncation)]
                let whole = number.as_i64().or_else(|| number.as_f64().map(|number| number as i64));
                whole.map_or(Value::Null, Value::from)
            }
            ("number", number @ Value::Number(_)) => number.clone(),
            ("boolean", flag @ Value::Bool(_)) => flag.clone(),
            _ => Value::Null,
        }
    }
}

/// Steps of a path; what is not understood finds nothing.
fn parse(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path.trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let end = closing(inside);
            steps.push(bracket(&inside[..end]));
            rest = inside.get(end + 1..).unwrap_or_default();
            continue;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let (name, length) = name(rest);
        if length == 0 && !rest.starts_with('[') {
            break;
        }
        match name.as_str() {
            "" => {}
            "*" => steps.push(Step::Each),
            _ => steps.push(Step::Field(name)),
        }
        rest = &rest[length..];
    }
    steps
}

/// Where the bracket ends that is already open; brackets in quotes do not count.
fn closing(inside: &str) -> usize {
    let mut quote = None;
    let mut depth = 0;
    for (at, c) in inside.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return at,
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    inside.len()
}

/// A field name up to the next dot or bracket; a backslash takes the next character as it is.
fn name(rest: &str) -> (String, usize) {
    let mut name = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, at),
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            c => name.push(c),
        }
    }
    (name, rest.len())
}

fn bracket(inside: &str) -> Step {
    let quoted = |text: &str| text.trim_matches(['\'', '"']).to_owned();
    if let Some(filter) = inside.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        let (left, right) = filter.split_once("==").unwrap_or((filter, ""));
        let right = right.trim();
        let wanted = match right.starts_with(['\'', '"']) {
            true => quoted(right).into(),
            false => serde_json::from_str(right).unwrap_or(Value::Null),
        };
        return Step::Where(parse(left.trim().trim_start_matches('@')), wanted);
    }
    match (inside, inside.parse()) {
        ("*", _) => Step::Each,
        (_, Ok(index)) => Step::Index(index),
        _ => Step::Field(quoted(inside)),
    }
}

fn find<'a>(value: &'a Value, path: &[Step]) -> Vec<&'a Value> {
    let Some((step, rest)) = path.split_first() else { return vec![value] };
    let below: Vec<&Value> = match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => {
            let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let at = if *index < 0 { index + i64::try_from(list.len()).unwrap_or(0) } else { *index };
            usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
        }
        Step::Each => match value {
            Value::Array(list) => list.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        },
        Step::Where(path, wanted) => {
            let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().filter(|one| find(one, path).contains(&wanted)).collect()
        }
    };
    below.into_iter().flat_map(|one| find(one, rest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_what_they_name() {
        let object = json!({"spec": {"a.b": 1, "list": [{"t": "x", "v": 1}, {"t": "y", "v": 2}]}});
        for (path, expected) in [
            (".spec.list[0].v", "[1]"),
            (".spec.list[-1].v", "[2]"),
            (".spec.list[*].t", r#"["x","y"]"#),
            (r#".spec.list[?(@.t=="y")].v"#, "[2]"),
            (r".spec.list[?(@.v==1)].t", r#"["x"]"#),
            (r".spec.a\.b", "[1]"),
            (".spec['a.b']", "[1]"),
            (".spec.none.deeper", "[]"),
        ] {
            let found = find(&object, &parse(path));
            assert_eq!(serde_json::to_string(&found).unwrap(), expected, "{path}");
        }
    }
}

//! Label and field selectors as requests write them.

use meta::{ApiResult, Status};

use crate::limits::SELECTOR_REQUIREMENTS_MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    GreaterThan(i64),
    LessThan(i64),
}

/// `app=web,tier in (a, b),!canary`: all requirements hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<(String, Operator)>);

impl LabelSelector {
    /// Parses a `labelSelector` parameter; empty selects everything.
    pub fn parse(text: &str) -> ApiResult<Self> {
        let failed = |why: String| Status::bad_request(format!("unable to parse requirement: {why}"));
        let mut requirements = Vec::new();
        for part in split_outside_parens(text).into_iter().map(str::trim).filter(|part| !part.is_empty()) {
            requirements.push(requirement(part).map_err(failed)?);
            if requirements.len() > SELECTOR_REQUIREMENTS_MAX {
                return Err(failed(format!("more than {SELECTOR_REQUIREMENTS_MAX} requirements")));
            }
        }
        Ok(Self(requirements))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|(key, operator)| {
            let value = label(key);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match operator {
                Operator::In(values) => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
                Operator::NotIn(values) => value.is_none_or(|value| values.iter().all(|other| other != value)),
                Operator::Exists => value.is_some(),
                Operator::Absent => value.is_none(),
                Operator::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
                Operator::LessThan(bound) => number().is_some_and(|number| number < *bound),
            }
        })
    }
}

/// Commas inside parentheses belong to a set of values.
fn split_outside_parens(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth <= 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(part: &str) -> Result<(String, Operator), String> {
    if let Some(key) = part.strip_prefix('!') {
        return Ok((label_key(key)?, Operator::Absent));
    }
    if let Some(open) = part.find('(') {
        let values = part[open + 1..].strip_suffix(')').ok_or_else(|| format!("{part:?}: expected: ')'"))?;
        let values = values.split(',').map(|value| label_value(value)).collect::<Result<Vec<_>, _>>()?;
        let mut head = part[..open].split_whitespace();
        let key = label_key(head.next().unwrap_or(""))?;
        return match (head.next(), head.next()) {
            (Some("in"), None) => Ok((key, Operator::In(values))),
            (Some("notin"), None) => Ok((key, Operator::NotIn(values))),
            (found, _) => Err(format!("found '{}', expected: in, notin", found.unwrap_or(""))),
        };
    }
    let one = |value: &str| label_value(value).map(|value| vec![value]);
    if let Some((key, value)) = part.split_once("!=") {
        return Ok((label_key(key)?, Operator::NotIn(one(value)?)));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok((label_key(key)?, Operator::In(one(value)?)));
    }
    let number = |value: &str| value.trim().parse::<i64>().map_err(|_| format!("{value:?}: must be an integer"));
    if let Some((key, value)) = part.split_once('>') {
        return Ok((label_key(key)?, Operator::GreaterThan(number(value)?)));
    }
    if let Some((key, value)) = part.split_once('<') {
        return Ok((label_key(key)?, Operator::LessThan(number(value)?)));
    }
    Ok((label_key(part)?, Operator::Exists))
}

fn label_key(text: &str) -> Result<String, String> {
    let text = text.trim();
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if text.is_empty() || text.len() > 317 || !text.chars().all(fine) {
        return Err(format!("invalid label key {text:?}"));
    }
    Ok(text.to_owned())
}

fn label_value(text: &str) -> Result<String, String> {
    let text = text.trim();
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() > 63 || !text.chars().all(fine) {
        return Err(format!(
            "values[0]: Invalid value: {text:?}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
        ));
    }
    Ok(text.to_owned())
}

/// `spec.nodeName=a,status.phase!=Failed`: only equality, and only fields that the kind lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<(String, bool, String)>);

impl FieldSelector {
    pub fn parse(text: &str) -> ApiResult<Self> {
        let mut requirements = Vec::new();
        for part in split_unescaped(text).into_iter().filter(|part| !part.is_empty()) {
            let (path, equal, value) = if let Some((path, value)) = part.split_once("!=") {
                (path, false, value)
            } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (path, true, value)
            } else {
                return Err(Status::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            requirements.push((path.to_owned(), equal, unescape(value)));
            if requirements.len() > SELECTOR_REQUIREMENTS_MAX {
                return Err(Status::bad_request(format!(
                    "invalid selector: more than {SELECTOR_REQUIREMENTS_MAX} terms"
                )));
            }
        }
        Ok(Self(requirements))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(path, _, _)| path.as_str())
    }

    /// The value that a field must have, where the selector says so.
    pub fn exact(&self, path: &str) -> Option<&str> {
        self.0.iter().find(|(known, equal, _)| *equal && known == path).map(|(_, _, value)| value.as_str())
    }

    /// Takes out the requirements that `exact` found, once something else enforces them.
    pub fn without_exact(mut self, path: &str) -> Self {
        if let Some(at) = self.0.iter().position(|(known, equal, _)| *equal && known == path) {
            self.0.remove(at);
        }
        self
    }

    pub fn matches<'a>(&self, field: impl Fn(&str) -> &'a str) -> bool {
        self.0.iter().all(|(path, equal, value)| (field(path) == value) == *equal)
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(value: &str) -> String {
    let (mut out, mut escaped) = (String::with_capacity(value.len()), false);
    for c in value.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_match_as_upstream() {
        let labels = |key: &str| match key {
            "app" => Some("web"),
            "n" => Some("5"),
            _ => None,
        };
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web,n=5", true),
            ("app!=web", false),
            ("missing!=web", true),
            ("app in (a, web)", true),
            ("app notin (web)", false),
            ("missing notin (web)", true),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("n>4", true),
            ("n<5", false),
        ];
        for (text, expected) in cases {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(labels), expected, "{text}");
        }
        for bad in ["a in b(c)", "a in (b", "=x", "a b"] {
            assert_eq!(LabelSelector::parse(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}

//! Label selectors: the text form of `labelSelector=`, the JSON form in objects, and matching.

use std::fmt;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::{FieldError, FieldErrors, FieldPath, names};

/// A selector may hold this many requirements, and a requirement this many values.
pub const REQUIREMENTS_MAX: usize = 10_000;

/// How a requirement compares a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without repetition.
    pub values: Vec<String>,
}

/// All requirements must hold; none at all selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    pub requirements: Vec<Requirement>,
}

/// Why a text is no label selector, worded as upstream answers it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct LabelSelectorError(String);

/// Reads labels by key: a JSON map, a `BTreeMap`, anything.
pub trait Labels {
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for Value {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}

impl Labels for Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}

impl Labels for std::collections::BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl<T: Labels> Labels for Option<T> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref()?.label(key)
    }
}

impl<T: Labels> Labels for &T {
    fn label(&self, key: &str) -> Option<&str> {
        (*self).label(key)
    }
}

impl Requirement {
    fn checked(key: String, operator: Operator, mut values: Vec<String>) -> Result<Self, LabelSelectorError> {
        let mut errors = Vec::new();
        let invalid = |path: &str, value: &str, why: &str| format!("{path}: Invalid value: {value:?}: {why}");
        let broken = names::qualified_name(&key);
        if !broken.is_empty() {
            errors.push(invalid("key", &key, &broken.join("; ")));
        }
        values.sort_unstable();
        values.dedup();
        for (i, value) in values.iter().enumerate() {
            let is_order = matches!(operator, Operator::GreaterThan | Operator::LessThan);
            if is_order && value.parse::<i64>().is_err() {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(invalid(&format!("values[{i}]"), value, why));
            }
            let broken = names::label_value(value);
            if !broken.is_empty() {
                errors.push(invalid(&format!("values[{i}][{key}]"), value, &broken.join("; ")));
            }
        }
        match errors.as_slice() {
            [] => Ok(Self { key, operator, values }),
            [one] => Err(LabelSelectorError(one.clone())),
            many => Err(LabelSelectorError(format!("[{}]", many.join(", ")))),
        }
    }

    fn matches(&self, labels: &impl Labels) -> bool {
        let label = labels.label(&self.key);
        let holds = |value: &str| self.values.iter().any(|v| v == value);
        let order = |compare: fn(i64, i64) -> bool| {
            let left = label.and_then(|l| l.parse().ok());
            let right = self.values.first().and_then(|v| v.parse().ok());
            left.zip(right).is_some_and(|(left, right)| compare(left, right))
        };
        match self.operator {
            Operator::In | Operator::Equals => label.is_some_and(holds),
            Operator::NotIn | Operator::NotEquals => !label.is_some_and(holds),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => order(|l, r| l > r),
            Operator::LessThan => order(|l, r| l < r),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

impl fmt::Display for Selector {
    /// The text form, requirements in order of their keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.requirements.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

impl Selector {
    /// Parses the `labelSelector` parameter.
    ///
    /// ```
    /// use serde_json::json;
    /// let selector = meta::labels::Selector::parse("app in (web, api),!canary").unwrap();
    /// assert!(selector.matches(&json!({"app": "web"})));
    /// assert!(!selector.matches(&json!({"app": "web", "canary": "yes"})));
    /// ```
    pub fn parse(text: &str) -> Result<Self, LabelSelectorError> {
        Parser { tokens: scan(text), position: 0 }.selector()
    }

    /// The selector of a plain map of labels that must all be equal.
    pub fn from_map(labels: &Value) -> Self {
        let mut requirements: Vec<_> = labels.as_object().into_iter().flatten().map(equals).collect();
        requirements.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Self { requirements }
    }

    /// The selector of a `metav1.LabelSelector`: an absent one selects nothing, an empty one everything. `None`
    /// also where an operator is unknown.
    pub fn from_label_selector(selector: &Value) -> Option<Self> {
        selector.as_object()?;
        let mut all = Self::from_map(&selector["matchLabels"]);
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match expression["operator"].as_str()? {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => return None,
            };
            let values = expression["values"].as_array().into_iter().flatten();
            let mut values: Vec<String> = values.filter_map(Value::as_str).map(str::to_owned).collect();
            values.sort_unstable();
            values.dedup();
            all.requirements.push(Requirement { key: expression["key"].as_str()?.to_owned(), operator, values });
        }
        all.requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Some(all)
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn matches(&self, labels: &impl Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

fn equals((key, value): (&String, &Value)) -> Requirement {
    let values = vec![value.as_str().unwrap_or_default().to_owned()];
    Requirement { key: key.clone(), operator: Operator::Equals, values }
}

/// The rules of a `metav1.LabelSelector` inside an object.
pub fn validate_label_selector(selector: &Value, path: &FieldPath) -> FieldErrors {
    let mut errors = validate_labels(&selector["matchLabels"], &path.child("matchLabels"));
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten().enumerate();
    for (i, expression) in expressions {
        errors.extend(validate_expression(expression, &path.child("matchExpressions").index(i)));
    }
    errors
}

fn validate_expression(expression: &Value, path: &FieldPath) -> FieldErrors {
    let mut errors = Vec::new();
    let values = expression["values"].as_array().map_or(&[][..], Vec::as_slice);
    match expression["operator"].as_str().unwrap_or_default() {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(&path.child("values"), why));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&path.child("values"), why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    let key = expression["key"].as_str().unwrap_or_default();
    errors.extend(names::qualified_name(key).into_iter().map(|e| FieldError::invalid(&path.child("key"), key, e)));
    for (i, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        let path = path.child("values").index(i);
        errors.extend(names::label_value(value).into_iter().map(|e| FieldError::invalid(&path, value, e)));
    }
    errors
}

/// The rules of a map of labels.
pub fn validate_labels(labels: &Value, path: &FieldPath) -> FieldErrors {
    let mut errors = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        errors.extend(names::qualified_name(key).into_iter().map(|e| FieldError::invalid(path, key.as_str(), e)));
        errors.extend(names::label_value(value).into_iter().map(|e| FieldError::invalid(path, value, e)));
    }
    errors
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    End,
    Identifier(String),
    Symbol(&'static str),
    Unknown(String),
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::End => "",
            Self::Identifier(text) => text,
            Self::Symbol(symbol) => symbol,
            Self::Unknown(text) => text,
        }
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self, Self::Symbol(s) if *s == symbol)
    }
}

fn is_special(c: char) -> bool {
    "=!(),><".contains(c)
}

fn scan(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', '\r', '\n']);
    while let Some(first) = rest.chars().next() {
        let (token, length) = if is_special(first) {
            let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
            symbol.map_or((Token::Unknown(first.to_string()), 1), |symbol| (Token::Symbol(symbol), symbol.len()))
        } else {
            let end = rest.find(|c| is_special(c) || " \t\r\n".contains(c)).unwrap_or(rest.len());
            (Token::Identifier(rest[..end].to_owned()), end)
        };
        tokens.push(token);
        rest = rest[length..].trim_start_matches([' ', '\t', '\r', '\n']);
    }
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
}

fn found(token: &Token, expected: &str) -> LabelSelectorError {
    LabelSelectorError(format!("found '{}', expected: {expected}", token.text()))
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.position).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        self.position += 1;
        self.tokens.get(self.position - 1).cloned().unwrap_or(Token::End)
    }

    fn starts_requirement(&self) -> bool {
        matches!(self.peek(), Token::Identifier(_)) || self.peek().is("!")
    }

    fn selector(mut self) -> Result<Selector, LabelSelectorError> {
        let mut requirements = Vec::new();
        while *self.peek() != Token::End {
            if !self.starts_requirement() {
                return Err(found(self.peek(), "!, identifier, or 'end of string'"));
            }
            let in_context =
                |e: LabelSelectorError| LabelSelectorError(format!("unable to parse requirement: {}", e.0));
            requirements.push(self.requirement().map_err(in_context)?);
            if requirements.len() > REQUIREMENTS_MAX {
                return Err(LabelSelectorError(format!("selector has more than {REQUIREMENTS_MAX} requirements")));
            }
            match self.next() {
                Token::End => break,
                comma if comma.is(",") => {
                    if !self.starts_requirement() {
                        return Err(found(self.peek(), "identifier after ','"));
                    }
                }
                other => return Err(found(&other, "',' or 'end of string'")),
            }
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Selector { requirements })
    }

    fn requirement(&mut self) -> Result<Requirement, LabelSelectorError> {
        let negated = self.peek().is("!");
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Identifier(key) => key,
            other => return Err(found(&other, "identifier")),
        };
        let broken = names::qualified_name(&key);
        if !broken.is_empty() {
            return Err(LabelSelectorError(format!("<nil>: Invalid value: {key:?}: {}", broken.join("; "))));
        }
        if negated {
            return Requirement::checked(key, Operator::DoesNotExist, Vec::new());
        }
        if *self.peek() == Token::End || self.peek().is(",") {
            return Requirement::checked(key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::checked(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, LabelSelectorError> {
        let token = self.next();
        Ok(match token.text() {
            "in" => Operator::In,
            "notin" => Operator::NotIn,
            "=" | "==" => Operator::Equals,
            "!=" => Operator::NotEquals,
            ">" => Operator::GreaterThan,
            "<" => Operator::LessThan,
            _ => return Err(found(&token, OPERATORS)),
        })
    }

    fn exact_value(&mut self) -> Result<String, LabelSelectorError> {
        if *self.peek() == Token::End || self.peek().is(",") {
            return Ok(String::new());
        }
        match self.next() {
            Token::Identifier(value) => Ok(value),
            other => Err(found(&other, "identifier")),
        }
    }

    /// `(a, b)`; an empty place counts as the empty value.
    fn values(&mut self) -> Result<Vec<String>, LabelSelectorError> {
        let open = self.next();
        if !open.is("(") {
            return Err(LabelSelectorError(format!("found '{}' expected: '('", open.text())));
        }
        let mut values = Vec::new();
        let mut current = String::new();
        let mut filled = false;
        loop {
            match self.next() {
                Token::Identifier(value) if !filled => {
                    current = value;
                    filled = true;
                }
                token if token.is(",") || token.is(")") => {
                    values.push(std::mem::take(&mut current));
                    filled = false;
                    if token.is(")") {
                        return Ok(values);
                    }
                }
                other if filled => return Err(found(&other, "',' or ')'")),
                other if values.is_empty() => return Err(found(&other, "',', ')' or identifier")),
                other => return Err(found(&other, "',', or identifier")),
            }
            if values.len() > REQUIREMENTS_MAX {
                return Err(LabelSelectorError(format!("requirement has more than {REQUIREMENTS_MAX} values")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_become_selectors_or_errors() {
        for (text, expected) in [
            ("", ""),
            ("a", "a"),
            ("!a", "!a"),
            ("a=b", "a=b"),
            ("a==b", "a=b"),
            ("a = b , c != d", "a=b,c!=d"),
            ("a=", "a="),
            ("b,a", "a,b"),
            ("x in (foo,,baz),y,z notin ()", "x in (,baz,foo),y,z notin ()"),
            ("in in (in)", "in in (in)"),
            ("a>1,b<2", "a>1,b<2"),
            ("a,", "found '', expected: identifier after ','"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            (
                "a>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            let actual = Selector::parse(text).map_or_else(|e| e.to_string(), |s| s.to_string());
            assert_eq!(actual, expected, "{text}");
        }
        let many = vec!["a"; REQUIREMENTS_MAX + 1].join(",");
        assert!(Selector::parse(&many).is_err());
    }

    #[test]
    fn absent_labels_match_only_what_denies_them() {
        let labels = json!({"a": "1", "b": "x"});
        for (text, expected) in [
            ("a=1", true),
            ("a!=1", false),
            ("c!=1", true),
            ("c notin (1)", true),
            ("c in (1)", false),
            ("a>0,a<2", true),
            ("b>0", false),
            ("!c,b", true),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&labels), expected, "{text}");
        }
        let selector = json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]});
        assert!(Selector::from_label_selector(&selector).unwrap().matches(&labels));
        assert!(Selector::from_label_selector(&Value::Null).is_none());
    }
}

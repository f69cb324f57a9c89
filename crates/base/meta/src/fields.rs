//! Field selectors: `status.phase=Running,spec.nodeName!=`, parsed, and matched through a reader of fields.

use thiserror::Error;

/// One comparison of a field with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub field: String,
    pub value: String,
    /// Whether the field must equal the value, or must not.
    pub equals: bool,
}

/// All terms must hold; none at all selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<Term>,
}

/// Why a text is no field selector, worded as upstream answers it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FieldSelectorError {
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term { selector: String, term: String },
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    #[error("invalid field selector: unescaped character in value: {0}")]
    Unescaped(u32),
    #[error("field selector has more than {TERMS_MAX} terms")]
    TooMany,
}

/// A selector may hold this many terms.
pub const TERMS_MAX: usize = 1000;

/// Splits at commas that no backslash guards.
fn split_terms(selector: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in selector.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&selector[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&selector[start..]);
    terms
}

fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => text.push(c),
                other => return Err(FieldSelectorError::Escape(['\\'].into_iter().chain(other).collect())),
            },
            ',' | '=' => return Err(FieldSelectorError::Unescaped(u32::from(c))),
            c => text.push(c),
        }
    }
    Ok(text)
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at =
        term.char_indices().map(|(i, _)| i).find(|&i| term[i..].starts_with('=') || term[i..].starts_with("!="))?;
    let (field, rest) = term.split_at(at);
    let equals = !rest.starts_with("!=");
    let value = ["!=", "==", "="].iter().find_map(|operator| rest.strip_prefix(operator))?;
    Some((field, equals, value))
}

impl FieldSelector {
    /// Parses the `fieldSelector` parameter.
    ///
    /// ```
    /// let selector = meta::fields::FieldSelector::parse("spec.nodeName=n1,status.phase!=Failed").unwrap();
    /// assert_eq!(selector.exact("spec.nodeName"), Some("n1"));
    /// ```
    pub fn parse(selector: &str) -> Result<Self, FieldSelectorError> {
        let mut parts = split_terms(selector);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let unknown = || FieldSelectorError::Term { selector: selector.to_owned(), term: part.to_owned() };
            let (field, equals, value) = split_term(part).ok_or_else(unknown)?;
            terms.push(Term { field: field.to_owned(), value: unescape(value)?, equals });
            if terms.len() > TERMS_MAX {
                return Err(FieldSelectorError::TooMany);
            }
        }
        Ok(Self { terms })
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether every term holds for the fields that `read` answers.
    pub fn matches(&self, read: impl Fn(&str) -> String) -> bool {
        self.terms.iter().all(|term| (read(&term.field) == term.value) == term.equals)
    }

    /// The value that a field must have, if a term names one: what an index can be asked for.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equals && term.field == field).map(|term| term.value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_terms_or_errors() {
        for (text, expected) in [
            ("", ""),
            ("a=b", "a=b"),
            ("a==b,c!=d", "a=b c!=d"),
            ("a=", "a="),
            (r"a=x\,y\=z", "a=x,y=z"),
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            (r"a=b\c", r"invalid field selector: invalid escape sequence: \c"),
        ] {
            let term = |t: &Term| format!("{}{}{}", t.field, if t.equals { "=" } else { "!=" }, t.value);
            let actual = FieldSelector::parse(text)
                .map_or_else(|e| e.to_string(), |s| s.terms.iter().map(term).collect::<Vec<_>>().join(" "));
            assert_eq!(actual, expected, "{text}");
        }
    }
}

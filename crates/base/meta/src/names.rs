//! What may be called what: the checks of names, labels, keys and ports, each answering one sentence per broken rule.

const LABEL_FORMAT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_MESSAGE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_FORMAT: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const UNDERSCORE_SUBDOMAIN_FORMAT: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const UNDERSCORE_SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
const DNS1035_FORMAT: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const DNS1035_MESSAGE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const WILDCARD_FORMAT: &str = r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const WILDCARD_MESSAGE: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
const QUALIFIED_FORMAT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_MESSAGE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE_FORMAT: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const LABEL_VALUE_MESSAGE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const CONFIG_KEY_FORMAT: &str = "[-._a-zA-Z0-9]+";
const CONFIG_KEY_MESSAGE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
const C_IDENTIFIER_FORMAT: &str = "[A-Za-z_][A-Za-z0-9_]*";
const C_IDENTIFIER_MESSAGE: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
const HEADER_FORMAT: &str = "[-A-Za-z0-9]+";
const HEADER_MESSAGE: &str = "a valid HTTP header must consist of alphanumeric characters or '-'";
const PERCENT_FORMAT: &str = "[0-9]+%";
const PERCENT_MESSAGE: &str = "a valid percent string must be a numeric string followed by an ending '%'";
const RELAXED_ENV_MESSAGE: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

const LABEL_BYTES_MAX: usize = 63;
const SUBDOMAIN_BYTES_MAX: usize = 253;
const PORT_NAME_BYTES_MAX: usize = 15;

pub fn max_length_error(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// The sentence for a value that does not match a regex, with examples of values that do.
pub fn regex_error(message: &str, format: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{format}')");
    }
    let examples = examples.iter().map(|e| format!("'{e}', ")).collect::<Vec<_>>().join(" or ");
    format!("{message} (e.g. {examples}regex used for validation is '{format}')")
}

pub fn range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// First and last byte pass `edge`, all between pass `edge` or are in `inner`.
fn bounded(value: &str, edge: fn(u8) -> bool, inner: &[u8]) -> bool {
    let bytes = value.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            edge(first) && edge(last) && bytes.iter().all(|&b| edge(b) || inner.contains(&b))
        }
        _ => false,
    }
}

fn is_label(value: &str) -> bool {
    bounded(value, lower_or_digit, b"-")
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

/// A DNS label as RFC 1123 allows it: namespace names, container names.
///
/// ```
/// assert!(meta::names::dns_label("web-1").is_empty());
/// assert_eq!(meta::names::dns_label("a.b"), ["must not contain dots"]);
/// ```
pub fn dns_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_BYTES_MAX {
        errors.push(max_length_error(LABEL_BYTES_MAX));
    }
    if !is_label(value) {
        errors.push(if is_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            regex_error(LABEL_MESSAGE, LABEL_FORMAT, &["my-name", "123-abc"])
        });
    }
    errors
}

/// A DNS subdomain as RFC 1123 allows it: the names of most objects.
pub fn dns_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        errors.push(max_length_error(SUBDOMAIN_BYTES_MAX));
    }
    if !is_subdomain(value) {
        errors.push(regex_error(SUBDOMAIN_MESSAGE, SUBDOMAIN_FORMAT, &["example.com"]));
    }
    errors
}

/// A DNS subdomain that may also hold underscores: DNS search domains.
pub fn dns_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        errors.push(max_length_error(SUBDOMAIN_BYTES_MAX));
    }
    let label = |label: &str| bounded(label.strip_prefix('_').unwrap_or(label), lower_or_digit, b"-_");
    if !value.split('.').all(label) {
        errors.push(regex_error(UNDERSCORE_SUBDOMAIN_MESSAGE, UNDERSCORE_SUBDOMAIN_FORMAT, &["example.com"]));
    }
    errors
}

/// A DNS label as RFC 1035 allows it, which starts with a letter: Service names.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_BYTES_MAX {
        errors.push(max_length_error(LABEL_BYTES_MAX));
    }
    if !is_label(value) || value.starts_with(|c: char| c.is_ascii_digit()) {
        errors.push(regex_error(DNS1035_MESSAGE, DNS1035_FORMAT, &["my-name", "abc-123"]));
    }
    errors
}

/// `*.` followed by a DNS subdomain: Ingress hosts.
pub fn wildcard_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        errors.push(max_length_error(SUBDOMAIN_BYTES_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        errors.push(regex_error(WILDCARD_MESSAGE, WILDCARD_FORMAT, &["*.example.com"]));
    }
    errors
}

/// A label or annotation key: an optional DNS prefix, a slash, and a name of at most 63 characters.
pub fn qualified_name(value: &str) -> Vec<String> {
    const EXAMPLES: [&str; 3] = ["MyName", "my.name", "123-abc"];
    let mut errors = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(dns_subdomain(prefix).into_iter().map(|error| format!("prefix part {error}")));
            }
            *name
        }
        _ => {
            let error = regex_error(QUALIFIED_MESSAGE, QUALIFIED_FORMAT, &EXAMPLES);
            errors.push(format!(
                "a valid label key {error} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
            return errors;
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_BYTES_MAX {
        errors.push(format!("name part {}", max_length_error(LABEL_BYTES_MAX)));
    }
    if !bounded(name, |b| b.is_ascii_alphanumeric(), b"-_.") {
        errors.push(format!("name part {}", regex_error(QUALIFIED_MESSAGE, QUALIFIED_FORMAT, &EXAMPLES)));
    }
    errors
}

/// A label's value: empty, or at most 63 characters of the qualified-name alphabet.
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_BYTES_MAX {
        errors.push(max_length_error(LABEL_BYTES_MAX));
    }
    if !value.is_empty() && !bounded(value, |b| b.is_ascii_alphanumeric(), b"-_.") {
        errors.push(regex_error(LABEL_VALUE_MESSAGE, LABEL_VALUE_FORMAT, &["MyValue", "my_value", "12345"]));
    }
    errors
}

/// A name that can stand as one segment of a URL path: RBAC objects, some configuration kinds.
pub fn path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ['/', '%'].iter().filter(|&&c| value.contains(c)).map(|c| format!("may not contain '{c}'")).collect()
}

fn dot_prefix(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// A key of a ConfigMap or Secret: also a file name, so no path tricks.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        errors.push(max_length_error(SUBDOMAIN_BYTES_MAX));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        errors.push(regex_error(CONFIG_KEY_MESSAGE, CONFIG_KEY_FORMAT, &["key.name", "KEY_NAME", "key-name"]));
    }
    errors.extend(dot_prefix(value));
    errors
}

/// An environment variable's name: any printable ASCII but `=`.
pub fn env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    let printable = |b: u8| b == b' ' || b.is_ascii_graphic();
    if value.bytes().all(|b| printable(b) && b != b'=') { Vec::new() } else { vec![RELAXED_ENV_MESSAGE.to_owned()] }
}

pub fn c_identifier(value: &str) -> Vec<String> {
    let valid = value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && value.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if valid {
        return Vec::new();
    }
    vec![regex_error(C_IDENTIFIER_MESSAGE, C_IDENTIFIER_FORMAT, &["my_name", "MY_NAME", "MyName"])]
}

/// A named port: at most 15 of `a-z0-9-`, at least one letter, hyphens only between other characters.
pub fn port_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > PORT_NAME_BYTES_MAX {
        errors.push(max_length_error(PORT_NAME_BYTES_MAX));
    }
    if value.is_empty() || !value.bytes().all(|b| lower_or_digit(b) || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

pub fn port_number(value: i64) -> Vec<String> {
    in_range(value, 1, 65535)
}

pub fn in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) { Vec::new() } else { vec![range_error(low, high)] }
}

pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![regex_error(HEADER_MESSAGE, HEADER_FORMAT, &["X-Header-Name"])]
}

pub fn percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![regex_error(PERCENT_MESSAGE, PERCENT_FORMAT, &["1%", "93%"])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_answers_its_sentence() {
        type Check = fn(&str) -> Vec<String>;
        let cases: [(&str, Check, &str, &str); 12] = [
            ("label", dns_label, "a-1", ""),
            (
                "label",
                dns_label,
                "A",
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ),
            ("subdomain", dns_subdomain, "a.b-c", ""),
            (
                "subdomain",
                dns_subdomain,
                "a..b",
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ),
            (
                "1035",
                dns1035_label,
                "1a",
                "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ),
            ("qualified", qualified_name, "example.com/a_B.c", ""),
            ("qualified", qualified_name, "/a", "prefix part must be non-empty"),
            ("value", label_value, "", ""),
            ("segment", path_segment, "a/b%", "may not contain '/'; may not contain '%'"),
            ("port", port_name, "-1-", "must contain at least one letter (a-z); must not begin or end with a hyphen"),
            ("key", config_map_key, "..a", "must not start with '..'"),
            ("env", env_var_name, "a=b", RELAXED_ENV_MESSAGE),
        ];
        for (rule, check, value, expected) in cases {
            assert_eq!(check(value).join("; "), expected, "{rule} {value:?}");
        }
    }
}

//! `$(NAME)` expansion in commands, arguments and environment values.

/// Replaces `$(NAME)` by `lookup(NAME)`; unknown names stay as written and `$$` is a literal dollar sign.
///
/// ```
/// let vars = |name: &str| (name == "A").then(|| "1".to_string());
/// assert_eq!(podsync::expand("x$(A)-$(B)-$$(A)", vars), "x1-$(B)-$(A)");
/// ```
pub fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(body) = after.strip_prefix('(')
            && let Some(end) = body.find(')')
        {
            match lookup(&body[..end]) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&rest[at..at + end + 3]),
            }
            rest = &body[end + 1..];
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

//! Paths of rules, and the normal form in which a request's path is compared with them.

use std::borrow::Cow;
use std::cmp::Reverse;

use percent_encoding::percent_decode_str;
use regex::Regex;

/// What a rule says about the path.
#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(Box<str>),
    /// Whole elements: `/a` fits `/a`, `/a/` and `/a/b`, never `/ab`. Kept without its final slash, so `/` is empty.
    Prefix(Box<str>),
    /// The whole path fits the expression.
    Regex(Regex),
}

impl PathMatch {
    pub fn prefix(path: &str) -> Self {
        Self::Prefix(path.trim_end_matches('/').into())
    }

    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(whole) => **whole == *path,
            Self::Prefix(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(expression) => expression.is_match(path),
        }
    }

    /// Rules are tried in this order: exact ones, then expressions, then prefixes, the longest first.
    pub fn rank(&self) -> (u8, Reverse<usize>) {
        match self {
            Self::Exact(path) => (0, Reverse(path.len())),
            Self::Regex(expression) => (1, Reverse(expression.as_str().len())),
            Self::Prefix(path) => (2, Reverse(path.len())),
        }
    }
}

impl PartialEq for PathMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// The path as a backend is going to understand it: escapes of ordinary characters resolved, `.` and `..` taken away,
/// slashes merged. Rules are compared with this form, so that `/public/%2e%2e/admin` is nobody's way around them; what
/// is sent on is what the client wrote.
pub fn normalize(path: &str) -> Cow<'_, str> {
    let plain = !path.contains('%') && !path.contains("//") && !path.contains("/.");
    if plain && path.starts_with('/') {
        return Cow::Borrowed(path);
    }
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut kept: Vec<&str> = Vec::new();
    for element in decoded.split('/') {
        match element {
            "" | "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    let is_directory = ["/", "/.", "/.."].iter().any(|end| decoded.ends_with(end));
    let mut normal = String::with_capacity(decoded.len() + 1);
    for element in &kept {
        normal.push('/');
        normal.push_str(element);
    }
    if normal.is_empty() || is_directory {
        normal.push('/');
    }
    Cow::Owned(normal)
}

/// A prefix that a rule matched, replaced: `/a/b` with prefix `/a` and replacement `/x` is `/x/b`.
pub fn replace_prefix(path: &str, prefix: &str, replacement: &str) -> String {
    let rest = path.strip_prefix(prefix.trim_end_matches('/')).unwrap_or(path);
    if rest.is_empty() && !replacement.is_empty() {
        return replacement.to_owned();
    }
    format!("{}/{}", replacement.trim_end_matches('/'), rest.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_of_whole_elements() {
        // The table of the Kubernetes documentation of Ingress.
        for (prefix, path, fits) in [
            ("/", "/anything", true),
            ("/foo", "/foo", true),
            ("/foo", "/foo/", true),
            ("/foo/", "/foo", true),
            ("/foo/", "/foo/", true),
            ("/aaa/bb", "/aaa/bbb", false),
            ("/aaa/bbb", "/aaa/bbb", true),
            ("/aaa/bbb/", "/aaa/bbb", true),
            ("/aaa/bbb", "/aaa/bbb/", true),
            ("/aaa/bbb", "/aaa/bbb/ccc", true),
            ("/aaa/bbb", "/aaa/bbbxyz", false),
            ("/foo", "/FOO", false),
        ] {
            assert_eq!(PathMatch::prefix(prefix).matches(path), fits, "{prefix} {path}");
        }
        assert!(PathMatch::Exact("/foo".into()).matches("/foo"));
        assert!(!PathMatch::Exact("/foo".into()).matches("/foo/"));
        assert!(!PathMatch::Exact("/foo/".into()).matches("/foo"));
    }

    #[test]
    fn paths_are_compared_as_backends_understand_them() {
        for (path, normal) in [
            ("/a/b", "/a/b"),
            ("/a//b/", "/a/b/"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/a/./b/..", "/a/"),
            ("/../..", "/"),
            ("/%61", "/a"),
            ("/a%2Fb", "/a/b"),
            ("*", "/*"),
            ("/..a/.b", "/..a/.b"),
        ] {
            assert_eq!(normalize(path), normal, "{path}");
        }
    }

    #[test]
    fn a_prefix_is_replaced() {
        // The table of the Gateway API's documentation of ReplacePrefixMatch.
        for (path, prefix, replacement, result) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
        ] {
            assert_eq!(replace_prefix(path, prefix, replacement), result, "{path} {prefix} {replacement}");
        }
    }
}

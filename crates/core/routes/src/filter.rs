//! What a route changes on requests and answers: headers, host and path, and redirects.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::path::{PathMatch, replace_prefix};

/// Header lines to set, add and remove, in this order.
#[derive(Clone, Debug, Default)]
pub struct HeaderEdit {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

impl HeaderEdit {
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

/// How a path is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathEdit {
    Full(Box<str>),
    /// The prefix that the route matched becomes this.
    Prefix(Box<str>),
}

impl PathEdit {
    /// The new path. `matched` is what the route said about the path.
    pub fn apply(&self, path: &str, matched: &PathMatch) -> String {
        match (self, matched) {
            (Self::Full(whole), _) => whole.to_string(),
            (Self::Prefix(replacement), PathMatch::Prefix(prefix)) => replace_prefix(path, prefix, replacement),
            // The API admits a replaced prefix only beside a prefix match.
            (Self::Prefix(_), _) => path.to_owned(),
        }
    }
}

/// An answer that sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: Option<Box<str>>,
    pub host: Option<Box<str>>,
    pub port: Option<u16>,
    pub path: Option<PathEdit>,
    pub status: u16,
}

/// What a redirect is computed from.
#[derive(Clone, Copy, Debug)]
pub struct RedirectFrom<'a> {
    pub scheme: &'a str,
    /// Without port.
    pub host: &'a str,
    /// The port of the listener.
    pub port: u16,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub matched: &'a PathMatch,
}

impl Redirect {
    /// The value of the Location header. Without a port of its own, a redirect that names a scheme goes to that scheme's
    /// well-known port, any other to the listener's; a well-known port is not written.
    pub fn location(&self, from: &RedirectFrom<'_>) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(from.scheme);
        let well_known = if scheme == "https" { 443 } else { 80 };
        let port = match (self.port, &self.scheme) {
            (Some(port), _) => port,
            (None, Some(_)) => well_known,
            (None, None) => from.port,
        };
        let host = self.host.as_deref().unwrap_or(from.host);
        let mut location = format!("{scheme}://{host}");
        if port != well_known {
            location.push_str(&format!(":{port}"));
        }
        match &self.path {
            Some(edit) => location.push_str(&edit.apply(from.path, from.matched)),
            None => location.push_str(from.path),
        }
        if let Some(query) = from.query {
            location.push('?');
            location.push_str(query);
        }
        location
    }
}

/// Host and path that the backend is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    pub host: Option<Box<str>>,
    pub path: Option<PathEdit>,
}

/// Everything that a route, or one backend of it, changes.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    pub request: HeaderEdit,
    pub response: HeaderEdit,
    pub redirect: Option<Redirect>,
    pub rewrite: Option<Rewrite>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_go_where_the_gateway_api_says() {
        let matched = PathMatch::prefix("/old");
        let from = |scheme, port| RedirectFrom {
            scheme,
            host: "a.com",
            port,
            path: "/old/x",
            query: Some("q=1"),
            matched: &matched,
        };
        let none = Redirect { scheme: None, host: None, port: None, path: None, status: 302 };
        let to = |redirect: Redirect, from| redirect.location(&from);
        let scheme = |name: &str| Some(name.into());
        assert_eq!(to(none.clone(), from("http", 80)), "http://a.com/old/x?q=1");
        assert_eq!(to(none.clone(), from("http", 8080)), "http://a.com:8080/old/x?q=1");
        assert_eq!(
            to(Redirect { scheme: scheme("https"), ..none.clone() }, from("http", 8080)),
            "https://a.com/old/x?q=1"
        );
        assert_eq!(
            to(Redirect { port: Some(8443), ..none.clone() }, from("https", 443)),
            "https://a.com:8443/old/x?q=1"
        );
        let new = Some(PathEdit::Prefix("/new".into()));
        assert_eq!(
            to(Redirect { host: Some("b.com".into()), path: new, ..none }, from("http", 80)),
            "http://b.com/new/x?q=1"
        );
    }

    #[test]
    fn headers_are_set_added_and_removed() {
        let header =
            |name: &'static str, value: &'static str| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let edit = HeaderEdit {
            set: vec![header("a", "new")],
            add: vec![header("b", "2")],
            remove: vec![HeaderName::from_static("c")],
        };
        let mut headers: HeaderMap = [header("a", "old"), header("b", "1"), header("c", "x")].into_iter().collect();
        edit.apply(&mut headers);
        assert_eq!(format!("{headers:?}"), r#"{"a": "new", "b": "1", "b": "2"}"#);
    }
}

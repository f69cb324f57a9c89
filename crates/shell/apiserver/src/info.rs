//! What a request asks for, read from its method, path and query alone.

use http::Method;
use percent_encoding::percent_decode_str;

/// The query of a request, in order, decoded.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: Option<&str>) -> Self {
        Self(form_urlencoded::parse(query.unwrap_or("").as_bytes()).into_owned().collect())
    }

    /// The first value of a parameter; absent and empty are the same to the API.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str())
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A boolean parameter, as Go reads it: present without a value means true.
    pub fn flag(&self, name: &str) -> bool {
        self.has(name) && !matches!(self.get(name), "false" | "0" | "f" | "F" | "False" | "FALSE")
    }
}

/// The coordinates of a request. `is_resource` is false for `/healthz`, discovery and the like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub is_resource: bool,
    pub verb: String,
    pub path: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
    /// What follows the subresource: the path below `proxy`.
    pub rest: String,
    /// How the client calls itself; names the owner of fields it writes.
    pub user_agent: String,
    /// A refusal is written in protobuf.
    pub wants_protobuf: bool,
}

/// Subresources of a namespace itself, which would otherwise read as resources inside of it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let mut info = Self { path: path.to_owned(), verb: method.as_str().to_lowercase(), ..Self::default() };
        let trimmed = path.trim_matches('/');
        let mut parts = trimmed.split('/').map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned());
        match parts.next().as_deref() {
            Some("api") => info.version = parts.next().unwrap_or_default(),
            Some("apis") => {
                info.group = parts.next().unwrap_or_default();
                info.version = parts.next().unwrap_or_default();
            }
            _ => return info,
        }
        let mut rest: Vec<String> = parts.collect();
        if info.version.is_empty() || rest.is_empty() || rest[0].is_empty() {
            return info;
        }
        info.is_resource = true;
        let old_watch = rest[0] == "watch" && rest.len() > 1;
        if old_watch {
            rest.remove(0);
        }
        if rest[0] == "namespaces" {
            if rest.len() > 1 {
                info.namespace.clone_from(&rest[1]);
            }
            if rest.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&rest[2].as_str()) {
                rest.drain(..2);
            }
        }
        let mut rest = rest.into_iter();
        info.resource = rest.next().unwrap_or_default();
        info.name = rest.next().unwrap_or_default();
        info.subresource = rest.next().unwrap_or_default();
        info.rest = rest.collect::<Vec<_>>().join("/");
        info.verb = verb(method, &info, query, old_watch).to_owned();
        if info.name.is_empty()
            && matches!(info.verb.as_str(), "list" | "watch")
            && let Some(name) = name_selected(query)
        {
            info.name = name;
        }
        info
    }

    /// Whether the answer stays open for as long as the client likes; such requests have no time or count limit.
    pub fn is_long_running(&self) -> bool {
        self.verb == "watch" || matches!(self.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
    }

    pub fn is_mutating(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }
}

fn verb(method: &Method, info: &RequestInfo, query: &Query, old_watch: bool) -> &'static str {
    let named = !info.name.is_empty();
    match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if named => "delete",
        "DELETE" => "deletecollection",
        "GET" | "HEAD" if old_watch => "watch",
        "GET" | "HEAD" if query.flag("watch") && info.subresource.is_empty() => "watch",
        "GET" | "HEAD" if named => "get",
        "GET" | "HEAD" => "list",
        "OPTIONS" => "options",
        _ => "",
    }
}

/// The one name that a list's field selector asks for: authorization treats such a list as one about that name.
fn name_selected(query: &Query) -> Option<String> {
    let selector = query.get("fieldSelector");
    let name = selector.split(',').find_map(|part| part.strip_prefix("metadata.name="))?;
    let name = name.strip_prefix('=').unwrap_or(name);
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        let cases = [
            ("GET", "/api/v1/pods", "list  pods  "),
            ("GET", "/api/v1/namespaces/a/pods/b/log", "get a pods b log"),
            ("GET", "/api/v1/namespaces/a", "get a namespaces a "),
            ("PUT", "/api/v1/namespaces/a/finalize", "update a namespaces a finalize"),
            ("GET", "/api/v1/watch/namespaces/a/pods", "watch a pods  "),
            ("GET", "/apis/apps/v1/deployments?watch=1", "watch  deployments  "),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection a deployments  "),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name=x", "list  pods x "),
            ("GET", "/healthz", "get    "),
            ("GET", "/apis/apps", "get    "),
        ];
        for (method, uri, expected) in cases {
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let i = RequestInfo::parse(&method, path, &Query::parse(Some(query)));
            let got = format!("{} {} {} {} {}", i.verb, i.namespace, i.resource, i.name, i.subresource);
            assert_eq!(got, expected, "{uri}");
        }
    }
}

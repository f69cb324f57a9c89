//! Host names of rules: exact, wildcard or any, and a map that finds the most specific one first.

use std::collections::HashMap;
use std::fmt;

/// What a rule, a listener or a certificate says about the host of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// This name and no other.
    Exact(Box<str>),
    /// Exactly one label before this suffix: an Ingress's `*.example.com` is kept as `example.com`.
    OneLabel(Box<str>),
    /// One or more labels before this suffix: a Gateway's `*.example.com`.
    Suffix(Box<str>),
    Any,
}

impl HostPattern {
    /// An Ingress's host; its wildcard covers one label.
    pub fn ingress(host: &str) -> Self {
        Self::parse(host, Self::OneLabel)
    }

    /// A Gateway's or HTTPRoute's hostname; its wildcard covers one label or more.
    pub fn gateway(host: &str) -> Self {
        Self::parse(host, Self::Suffix)
    }

    fn parse(host: &str, wildcard: fn(Box<str>) -> Self) -> Self {
        let host = host.to_ascii_lowercase();
        match host.strip_prefix("*.") {
            _ if host.is_empty() => Self::Any,
            Some(suffix) => wildcard(suffix.into()),
            None => Self::Exact(host.into()),
        }
    }

    /// Whether a name (lower case, without port) fits.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => **name == *host,
            Self::OneLabel(suffix) => {
                host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && *rest == **suffix)
            }
            Self::Suffix(suffix) => host
                .strip_suffix(&**suffix)
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
        }
    }

    /// What both patterns admit, by Gateway API's rules; `None` when no name fits both.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, narrow) | (narrow, Self::Any) => Some(narrow.clone()),
            (Self::Exact(name), pattern) | (pattern, Self::Exact(name)) => {
                pattern.matches(name).then(|| Self::Exact(name.clone()))
            }
            (Self::Suffix(a) | Self::OneLabel(a), Self::Suffix(b) | Self::OneLabel(b)) => {
                let within = |long: &str, short: &str| long == short || long.ends_with(&format!(".{short}"));
                match (within(a, b), within(b, a)) {
                    (true, _) => Some(self.clone()),
                    (_, true) => Some(other.clone()),
                    _ => None,
                }
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::OneLabel(suffix) | Self::Suffix(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Values by host pattern.
#[derive(Clone, Debug)]
pub struct HostMap<T> {
    exact: HashMap<Box<str>, T>,
    one_label: HashMap<Box<str>, T>,
    suffix: HashMap<Box<str>, T>,
    any: Option<T>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), one_label: HashMap::new(), suffix: HashMap::new(), any: None }
    }
}

impl<T> HostMap<T> {
    /// The value of exactly this pattern, made when there is none.
    pub fn entry(&mut self, pattern: &HostPattern) -> &mut T
    where
        T: Default,
    {
        match pattern {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::OneLabel(suffix) => self.one_label.entry(suffix.clone()).or_default(),
            HostPattern::Suffix(suffix) => self.suffix.entry(suffix.clone()).or_default(),
            HostPattern::Any => self.any.get_or_insert_with(T::default),
        }
    }

    /// The values whose pattern fits the name (lower case, without port), the most specific first.
    pub fn candidates<'a, 'h>(&'a self, host: &'h str) -> impl Iterator<Item = &'a T> + use<'a, 'h, T> {
        let mut rest = host;
        let mut first = true;
        let wild = std::iter::from_fn(move || {
            // Most maps hold no wildcard at all: then a name is looked up once.
            if self.one_label.is_empty() && self.suffix.is_empty() {
                return None;
            }
            let (_, parent) = rest.split_once('.')?;
            rest = parent;
            let one = if std::mem::take(&mut first) { self.one_label.get(parent) } else { None };
            Some([one, self.suffix.get(parent)])
        });
        self.exact.get(host).into_iter().chain(wild.flatten().flatten()).chain(&self.any)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let named = self.exact.values_mut().chain(self.one_label.values_mut()).chain(self.suffix.values_mut());
        named.chain(&mut self.any)
    }

    /// All patterns with their values, in the order of their text.
    pub fn sorted(&self) -> Vec<(HostPattern, &T)> {
        let exact = self.exact.iter().map(|(name, value)| (HostPattern::Exact(name.clone()), value));
        let one = self.one_label.iter().map(|(name, value)| (HostPattern::OneLabel(name.clone()), value));
        let suffix = self.suffix.iter().map(|(name, value)| (HostPattern::Suffix(name.clone()), value));
        let mut all: Vec<_> =
            exact.chain(one).chain(suffix).chain(self.any.iter().map(|value| (HostPattern::Any, value))).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.one_label.is_empty() && self.suffix.is_empty() && self.any.is_none()
    }
}

/// The host of a request as rules see it: without port and final dot, in lower case.
pub fn normalize(host: &str) -> std::borrow::Cow<'_, str> {
    let name = match host.rfind(':') {
        // An IPv6 address is in brackets; its colons are no port.
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) { name.to_ascii_lowercase().into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_host_comes_first() {
        let mut map: HostMap<&str> = HostMap::default();
        for (pattern, value) in [
            (HostPattern::gateway("*.com"), "suffix com"),
            (HostPattern::gateway("*.example.com"), "suffix example"),
            (HostPattern::ingress("*.example.com"), "label example"),
            (HostPattern::gateway("a.example.com"), "exact"),
            (HostPattern::Any, "any"),
        ] {
            *map.entry(&pattern) = value;
        }
        let found = |host: &str| map.candidates(host).copied().collect::<Vec<_>>().join(", ");
        assert_eq!(found("a.example.com"), "exact, label example, suffix example, suffix com, any");
        assert_eq!(found("x.y.example.com"), "suffix example, suffix com, any");
        assert_eq!(found("example.com"), "suffix com, any");
        assert_eq!(found("localhost"), "any");
    }

    #[test]
    fn hosts_intersect_as_the_gateway_api_says() {
        for (a, b, both) in [
            ("", "a.com", Some("a.com")),
            ("*.com", "a.com", Some("a.com")),
            ("*.com", "a.b.com", Some("a.b.com")),
            ("*.com", "com", None),
            ("*.example.com", "*.com", Some("*.example.com")),
            ("*.example.com", "*.ample.com", None),
            ("a.com", "b.com", None),
            ("", "", Some("*")),
        ] {
            let (a, b) = (HostPattern::gateway(a), HostPattern::gateway(b));
            assert_eq!(a.intersection(&b).map(|p| p.to_string()).as_deref(), both, "{a} {b}");
            assert_eq!(a.intersection(&b), b.intersection(&a));
        }
    }

    #[test]
    fn a_host_loses_port_case_and_final_dot() {
        for (host, name) in
            [("A.Com:80", "a.com"), ("a.com.", "a.com"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")]
        {
            assert_eq!(normalize(host), name);
        }
    }
}

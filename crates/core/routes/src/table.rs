//! The immutable routing table: ports, hosts, routes and backends, and how a request finds its route.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};
use regex::Regex;

use crate::Key;
use crate::filter::Filters;
use crate::host::HostMap;
use crate::path::PathMatch;
use crate::settings::Limits;
use crate::view::Protocol;

/// Why requests to a backend cannot be served at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    NoService,
    NoPort,
    ExternalName,
    /// An Ingress's `backend.resource`, or a kind other than Service.
    NoServiceKind,
    /// Another namespace's Service without a ReferenceGrant.
    NotPermitted,
}

impl Unusable {
    /// What to tell users.
    pub fn message(self) -> &'static str {
        match self {
            Self::NoService => "the Service does not exist",
            Self::NoPort => "the Service has no such port",
            Self::ExternalName => "Services of type ExternalName are not followed",
            Self::NoServiceKind => "backends other than Services are not served",
            Self::NotPermitted => "no ReferenceGrant permits the reference to another namespace",
        }
    }
}

/// One port of a Service, with where it is served right now.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// `namespace/service:port`.
    pub name: Box<str>,
    pub addresses: Vec<SocketAddr>,
    pub protocol: Protocol,
    pub unusable: Option<Unusable>,
}

impl Backend {
    pub fn unusable(name: impl Into<Box<str>>, why: Unusable) -> Self {
        Self { name: name.into(), addresses: Vec::new(), protocol: Protocol::Http1, unusable: Some(why) }
    }
}

/// A condition on a header or a query parameter.
#[derive(Clone, Debug)]
pub enum TextMatch {
    Exact(Box<str>),
    Regex(Regex),
}

impl TextMatch {
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => **wanted == *text,
            Self::Regex(expression) => expression.is_match(text),
        }
    }
}

/// What a request must be for a route.
#[derive(Clone, Debug)]
pub struct Condition {
    pub path: PathMatch,
    pub method: Option<Method>,
    pub headers: Vec<(HeaderName, TextMatch)>,
    pub query: Vec<(Box<str>, TextMatch)>,
}

impl Condition {
    pub fn path(path: PathMatch) -> Self {
        Self { path, method: None, headers: Vec::new(), query: Vec::new() }
    }

    fn matches(&self, asked: &Asked<'_>) -> bool {
        self.path.matches(asked.path)
            && self.method.as_ref().is_none_or(|method| *method == *asked.method)
            && self.headers.iter().all(|(name, wanted)| {
                // Several lines of one name are one list.
                let mut lines = asked.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
                match (lines.next(), lines.next()) {
                    (Some(only), None) => wanted.matches(only),
                    (Some(first), Some(second)) => {
                        let all: Vec<&str> = [first, second].into_iter().chain(lines).collect();
                        wanted.matches(&all.join(","))
                    }
                    _ => false,
                }
            })
            && self.query.iter().all(|(name, wanted)| {
                let mut pairs = parameters(asked.query.unwrap_or_default());
                pairs.find(|(found, _)| **found == **name).is_some_and(|(_, value)| wanted.matches(&value))
            })
    }
}

fn parameters(query: &str) -> impl Iterator<Item = (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)> {
    let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    query.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// One of the backends of a route.
#[derive(Clone, Debug)]
pub struct Weighted {
    pub weight: u32,
    pub backend: Arc<Backend>,
    pub filters: Filters,
}

/// What is done with the requests of a route.
#[derive(Clone, Debug)]
pub struct Action {
    /// `Ingress default/web` or `HTTPRoute default/web`: for logs and metrics.
    pub source: Arc<str>,
    pub filters: Filters,
    pub backends: Vec<Weighted>,
    pub limits: Limits,
    /// Status of the answer when the chosen backend is none: Gateway API wants 500, for an Ingress it is 503.
    pub unusable_status: u16,
    /// Plain HTTP is sent to HTTPS.
    pub ssl_redirect: bool,
}

impl Action {
    /// The backend for a number drawn by the caller; `None` when no backend has any weight.
    pub fn choose(&self, draw: u32) -> Option<&Weighted> {
        if let [only] = self.backends.as_slice() {
            return (only.weight > 0).then_some(only);
        }
        let total: u64 = self.backends.iter().map(|weighted| u64::from(weighted.weight)).sum();
        let mut left = u64::from(draw).checked_rem(total)?;
        self.backends.iter().find(|weighted| {
            let here = left < u64::from(weighted.weight);
            left = left.saturating_sub(u64::from(weighted.weight));
            here
        })
    }
}

/// A condition and what follows from it.
#[derive(Clone, Debug)]
pub struct Route {
    pub condition: Condition,
    pub action: Arc<Action>,
}

/// Routes by host, each list in the order in which it is tried.
pub type Hosts = HostMap<Vec<Route>>;

/// Which certificate is shown to whom.
pub type Certificates = HostMap<Option<Key>>;

/// A Gateway's listener.
#[derive(Clone, Debug, Default)]
pub struct GatewayListener {
    pub hosts: Hosts,
}

/// The routes of all Ingresses.
#[derive(Clone, Debug, Default)]
pub struct IngressHosts {
    pub rules: Hosts,
    /// Default backends, for what no rule of any Ingress matches: by the hosts of their own Ingress, and for any host.
    pub defaults: Hosts,
}

/// What happens on one port.
#[derive(Clone, Debug, Default)]
pub struct Port {
    pub tls: bool,
    /// Listeners of Gateways by their hostname; only the most specific one serves a host.
    pub gateways: HostMap<GatewayListener>,
    /// The routes of Ingresses, tried where no Gateway has one.
    pub ingress: Option<Arc<IngressHosts>>,
    pub certificates: Certificates,
}

/// The whole of it.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub ports: BTreeMap<u16, Port>,
    /// Addresses that some route may send a request to.
    pub addresses: BTreeSet<IpAddr>,
    /// The port to which plain HTTP is redirected.
    pub https_port: u16,
}

/// What of a request matters for its way.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub port: u16,
    /// As [`crate::host::normalize`] gives it.
    pub host: &'a str,
    /// As [`crate::path::normalize`] gives it.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
}

impl Table {
    /// The route of a request.
    pub fn find(&self, asked: &Asked<'_>) -> Option<&Route> {
        let port = self.ports.get(&asked.port)?;
        let of_gateway = port.gateways.candidates(asked.host).next();
        let found = of_gateway.and_then(|listener| find_in(&listener.hosts, asked));
        let ingress = port.ingress.as_deref();
        found.or_else(|| find_in(&ingress?.rules, asked)).or_else(|| find_in(&ingress?.defaults, asked))
    }

    /// The Secrets whose certificate may be shown on a port to who asks for this name (none: no name), best first.
    pub fn certificates<'a, 'n>(
        &'a self,
        port: u16,
        name: Option<&'n str>,
    ) -> impl Iterator<Item = &'a Key> + use<'a, 'n> {
        let certificates = self.ports.get(&port).map(|port| &port.certificates);
        certificates.into_iter().flat_map(move |map| map.candidates(name.unwrap_or_default())).flatten()
    }

    /// Every Secret that a certificate is read from.
    pub fn secrets(&self) -> BTreeSet<Key> {
        let all = self.ports.values().flat_map(|port| port.certificates.sorted());
        all.filter_map(|(_, secret)| secret.clone()).collect()
    }
}

fn find_in<'t>(hosts: &'t Hosts, asked: &Asked<'_>) -> Option<&'t Route> {
    // The borrow of the host ends with the search: what is found belongs to the table.
    hosts.candidates(asked.host).flatten().find(|route| route.condition.matches(asked))
}

/// Puts routes into the order in which they are tried; equal ones keep the order of their objects' age and name.
pub fn sort(hosts: &mut Hosts) {
    for routes in hosts.values_mut() {
        routes.sort_by_key(|route| {
            let condition = &route.condition;
            let more = std::cmp::Reverse;
            (
                condition.path.rank(),
                condition.method.is_none(),
                more(condition.headers.len()),
                more(condition.query.len()),
            )
        });
    }
}

//! Where names outside the cluster are asked for: ConfigMap `kube-system/kube-dns`, in the form that Kubernetes documents.
//!
//! `stubDomains` is a JSON map of domains to name servers, `upstreamNameservers` a JSON list of them. Without the ConfigMap
//! the machine's own resolvers answer.

use k8s_openapi::api::core::v1::ConfigMap;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

/// Most name servers of one list, as upstream admits.
pub const SERVERS_MAX: usize = 3;
const DNS_PORT: u16 = 53;

/// The servers to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstreams {
    /// Domain, in lower case and without dots around it, to its servers.
    pub stubs: BTreeMap<String, Vec<SocketAddr>>,
    /// For everything else; `None` leaves it to the machine's resolvers.
    pub others: Option<Vec<SocketAddr>>,
}

impl Upstreams {
    /// Reads the ConfigMap; what cannot be read is left out and logged.
    pub fn read(map: &ConfigMap) -> Self {
        let data = map.data.clone().unwrap_or_default();
        let stubs: BTreeMap<String, Vec<String>> = json(&data, "stubDomains").unwrap_or_default();
        let others: Option<Vec<String>> = json(&data, "upstreamNameservers");
        let name = |domain: String| domain.trim_matches('.').to_ascii_lowercase();
        Self {
            stubs: stubs.into_iter().map(|(domain, servers)| (name(domain), addresses(&servers))).collect(),
            others: others.map(|servers| addresses(&servers)).filter(|servers| !servers.is_empty()),
        }
    }

    /// The servers of the longest stub domain that `name` lies in, else those for everything else.
    pub fn of(&self, name: &str) -> Option<&[SocketAddr]> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let lies_in =
            |domain: &str| name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let stub = self.stubs.iter().filter(|(domain, _)| lies_in(domain)).max_by_key(|(domain, _)| domain.len());
        stub.map(|(_, servers)| servers.as_slice()).or(self.others.as_deref())
    }
}

fn json<T: DeserializeOwned>(data: &BTreeMap<String, String>, key: &str) -> Option<T> {
    let text = data.get(key).filter(|text| !text.trim().is_empty())?;
    serde_json::from_str(text)
        .inspect_err(|error| tracing::warn!(key, %error, "cannot read the DNS configuration, going on without"))
        .ok()
}

fn addresses(texts: &[String]) -> Vec<SocketAddr> {
    let one = |text: &String| {
        let plain = text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, DNS_PORT));
        let address = plain.or_else(|| text.parse().ok());
        if address.is_none() {
            tracing::warn!(server = text, "a name server is no address, leaving it out");
        }
        address
    };
    texts.iter().filter_map(one).take(SERVERS_MAX).collect()
}

/// The upstreams as shared between the watch, which changes them, and the servers, which ask.
#[derive(Clone, Default)]
pub struct SharedUpstreams(Arc<RwLock<(u64, Upstreams)>>);

impl SharedUpstreams {
    /// Replaces them; answers that were remembered are of the past then.
    pub fn set(&self, upstreams: Upstreams) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.1 != upstreams {
            *known = (known.0 + 1, upstreams);
        }
    }

    /// How often they changed.
    pub fn generation(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).0
    }

    /// As [`Upstreams::of`].
    pub fn of(&self, name: &str) -> Option<Vec<SocketAddr>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).1.of(name).map(<[SocketAddr]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stub_domain_answers() {
        let map = serde_json::from_value(serde_json::json!({ "data": {
            "stubDomains": r#"{"Acme.local": ["1.2.3.4"], "deep.acme.local.": ["1.2.3.5:5353", "nonsense"]}"#,
            "upstreamNameservers": r#"["8.8.8.8", "8.8.4.4"]"#,
        }}));
        let upstreams = Upstreams::read(&map.unwrap());
        let of = |name| upstreams.of(name).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(of("acme.local."), "1.2.3.4:53");
        assert_eq!(of("WWW.Acme.Local"), "1.2.3.4:53");
        assert_eq!(of("a.deep.acme.local"), "1.2.3.5:5353");
        assert_eq!(of("notacme.local"), "8.8.8.8:53 8.8.4.4:53");
        let broken =
            serde_json::from_value(serde_json::json!({ "data": { "stubDomains": "[", "upstreamNameservers": "" } }));
        assert_eq!(Upstreams::read(&broken.unwrap()), Upstreams::default());
        assert_eq!(Upstreams::default().of("example.test"), None);
    }
}

//! The cluster's DNS zone as a view that is kept up to date one object at a time and asked by name and type.
//!
//! Follows the Kubernetes DNS specification 1.1.0: Services, headless Services with host names, named ports, reverse
//! names, pods by address, external names. A name that has no records but has names below it, or exists with other
//! types, answers "no data"; anything else inside the zone does not exist.

use crate::view::{Frontend, Key, Protocol, ServiceView, SliceView};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Version of the specification, as the `dns-version` record says it.
pub const DNS_VERSION: &str = "1.1.0";
/// Seconds that clients may keep an answer: short, since headless names follow pods.
pub const TTL_SECONDS: u32 = 5;

/// Types that the zone holds; everything else is `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    A,
    Aaaa,
    Srv,
    Ptr,
    Cname,
    Txt,
    Soa,
    Ns,
    Any,
    Other,
}

/// Data of one record. Names are absolute, without the final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    Ip(IpAddr),
    Srv { port: u16, weight: u16, target: String },
    Ptr(String),
    Cname(String),
    Txt(String),
    Soa,
    Ns(String),
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    pub name: String,
    pub data: Data,
}

/// What the zone says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Records, and addresses of SRV targets. An external name is followed by the caller.
    Records {
        answers: Vec<Record>,
        additional: Vec<Record>,
    },
    NoData,
    NoSuchName,
    /// Not a name of this zone: ask elsewhere.
    NotOurs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    ip: IpAddr,
    host: String,
}

/// The zone.
pub struct Zone {
    /// Counts changes.
    version: u64,
    domain: String,
    dns_ip: Ipv4Addr,
    services: BTreeMap<Key, ServiceView>,
    /// Services per namespace: a namespace name exists while it has some.
    namespaces: BTreeMap<String, usize>,
    slices: BTreeMap<Key, BTreeMap<String, SliceView>>,
    slice_owner: BTreeMap<Key, Key>,
    /// Reverse lookups: cluster IPs and endpoint addresses to the services that use them.
    by_ip: BTreeMap<IpAddr, BTreeSet<Key>>,
}

impl Zone {
    /// An empty zone `domain` served at the cluster IP `dns_ip`.
    pub fn new(domain: &str, dns_ip: Ipv4Addr) -> Self {
        Self {
            version: 0,
            domain: domain.trim_matches('.').to_ascii_lowercase(),
            dns_ip,
            services: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            slices: BTreeMap::new(),
            slice_owner: BTreeMap::new(),
            by_ip: BTreeMap::new(),
        }
    }

    /// The zone's name.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Another number after each change: within one version every question has one answer.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Sets or removes a Service.
    pub fn set_service(&mut self, key: Key, service: Option<ServiceView>) {
        self.version += 1;
        self.index(&key, false);
        let old = match service {
            Some(view) => {
                let old = self.services.insert(key.clone(), view);
                *self.namespaces.entry(key.namespace.clone()).or_default() += usize::from(old.is_none());
                old
            }
            None => {
                let old = self.services.remove(&key);
                if let Some(count) = self.namespaces.get_mut(&key.namespace) {
                    *count -= usize::from(old.is_some()).min(*count);
                    if *count == 0 {
                        self.namespaces.remove(&key.namespace);
                    }
                }
                old
            }
        };
        drop(old);
        self.index(&key, true);
    }

    /// Sets or removes an EndpointSlice.
    pub fn set_slice(&mut self, key: Key, slice: Option<SliceView>) {
        self.version += 1;
        let old = self.slice_owner.remove(&key);
        if let Some(owner) = &old {
            self.index(owner, false);
            if let Some(slices) = self.slices.get_mut(owner) {
                slices.remove(&key.name);
                if slices.is_empty() {
                    self.slices.remove(owner);
                }
            }
        }
        if let Some(slice) = slice {
            let owner = slice.service.clone();
            if old.as_ref() != Some(&owner) {
                self.index(&owner, false);
            }
            self.slices.entry(owner.clone()).or_default().insert(key.name.clone(), slice);
            self.index(&owner, true);
            self.slice_owner.insert(key, owner);
        }
        if let Some(owner) = &old {
            self.index(owner, true);
        }
    }

    fn index(&mut self, key: &Key, present: bool) {
        let Some(service) = self.services.get(key) else { return };
        let ips: Vec<IpAddr> = match &service.frontend {
            Frontend::Cluster(ips) => ips.clone(),
            Frontend::Headless => self.addresses(key).into_iter().map(|address| address.ip).collect(),
            Frontend::Pending | Frontend::External(_) => vec![],
        };
        for ip in ips {
            if present {
                self.by_ip.entry(ip).or_default().insert(key.clone());
            } else if let Some(users) = self.by_ip.get_mut(&ip) {
                users.remove(key);
                if users.is_empty() {
                    self.by_ip.remove(&ip);
                }
            }
        }
    }

    /// Ready addresses of a service's slices with their host labels.
    fn addresses(&self, key: &Key) -> Vec<Address> {
        let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values);
        let ready = slices.flat_map(|slice| slice.endpoints.iter().filter(|endpoint| endpoint.ready));
        let (mut all, mut seen): (Vec<Address>, BTreeSet<(IpAddr, String)>) = (vec![], BTreeSet::new());
        for endpoint in ready {
            for ip in endpoint.addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()) {
                let host = endpoint.hostname.clone().unwrap_or_else(|| dashed(ip));
                if seen.insert((ip, host.clone())) {
                    all.push(Address { ip, host });
                }
            }
        }
        all
    }

    /// Answers a question. `name` is absolute, in any case, with or without the final dot.
    pub fn query(&self, name: &str, kind: Type) -> Answer {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(ip) = reverse(&name) {
            return self.reverse_name(&name, ip, kind);
        }
        let Some(rest) = name.strip_suffix(self.domain.as_str()) else { return Answer::NotOurs };
        let labels: Vec<&str> = match rest.strip_suffix('.') {
            Some(labels) => labels.split('.').collect(),
            None if rest.is_empty() => vec![],
            None => return Answer::NotOurs,
        };
        let (records, additional) = match self.resolve(&labels) {
            Some(found) => found,
            None => return Answer::NoSuchName,
        };
        let wanted = |data: &Data| match (kind, data) {
            (Type::Any, _) | (Type::A, Data::Ip(IpAddr::V4(_))) | (Type::Aaaa, Data::Ip(IpAddr::V6(_))) => true,
            (Type::Srv, Data::Srv { .. }) | (Type::Txt, Data::Txt(_)) | (Type::Soa, Data::Soa) => true,
            // A CNAME answers every question about its name.
            (Type::Ns, Data::Ns(_)) | (_, Data::Cname(_)) => true,
            _ => false,
        };
        let answers: Vec<Record> =
            records.into_iter().filter(&wanted).map(|data| Record { name: name.clone(), data }).collect();
        if answers.is_empty() {
            return Answer::NoData;
        }
        let has_srv = answers.iter().any(|record| matches!(record.data, Data::Srv { .. }));
        Answer::Records { answers, additional: if has_srv { additional } else { vec![] } }
    }

    /// All data of a name below the zone, with addresses of SRV targets; `None` if it does not exist.
    fn resolve(&self, labels: &[&str]) -> Option<(Vec<Data>, Vec<Record>)> {
        let plain = |data: Vec<Data>| Some((data, vec![]));
        match labels {
            [] => plain(vec![Data::Soa, Data::Ns(format!("ns.dns.{}", self.domain))]),
            ["dns-version"] => plain(vec![Data::Txt(DNS_VERSION.to_owned())]),
            ["ns", "dns"] => plain(vec![Data::Ip(self.dns_ip.into())]),
            ["svc" | "pod" | "dns"] => plain(vec![]),
            [namespace, "svc" | "pod"] => self.namespaces.contains_key(*namespace).then_some((vec![], vec![])),
            [address, namespace, "pod"] => {
                let known = self.namespaces.contains_key(*namespace);
                let ip = undashed(address).filter(|_| known)?;
                plain(vec![Data::Ip(ip)])
            }
            [rest @ .., name, namespace, "svc"] => self.service(rest, &Key::new(*namespace, *name)),
            _ => None,
        }
    }

    fn service(&self, rest: &[&str], key: &Key) -> Option<(Vec<Data>, Vec<Record>)> {
        let service = self.services.get(key)?;
        let base = format!("{}.{}.svc.{}", key.name, key.namespace, self.domain);
        let addresses = || self.addresses(key);
        match (rest, &service.frontend) {
            ([], Frontend::External(target)) => {
                Some((vec![Data::Cname(target.trim_end_matches('.').to_ascii_lowercase())], vec![]))
            }
            (_, Frontend::External(_)) => None,
            ([], frontend) => {
                let ips = self.service_ips(key, frontend);
                let (srv, additional) = self.srv(key, service, &base, |_, _| true);
                Some((ips.into_iter().map(Data::Ip).chain(srv).collect(), additional))
            }
            ([protocol], _) if protocol.starts_with('_') => {
                let has = service
                    .ports
                    .iter()
                    .any(|port| is_label(protocol, port.protocol.as_str()) && !port.name.is_empty());
                has.then_some((vec![], vec![]))
            }
            ([port, protocol], _) if port.starts_with('_') => {
                let matches = |name: &str, of: Protocol| is_label(port, name) && is_label(protocol, of.as_str());
                let (srv, additional) = self.srv(key, service, &base, matches);
                (!srv.is_empty()).then_some((srv, additional))
            }
            ([host], _) => {
                let ips: Vec<Data> =
                    addresses().into_iter().filter(|a| a.host == *host).map(|a| Data::Ip(a.ip)).collect();
                (!ips.is_empty()).then_some((ips, vec![]))
            }
            _ => None,
        }
    }

    fn service_ips(&self, key: &Key, frontend: &Frontend) -> Vec<IpAddr> {
        match frontend {
            Frontend::Cluster(ips) => ips.clone(),
            Frontend::Headless => self.addresses(key).into_iter().map(|address| address.ip).collect(),
            Frontend::Pending | Frontend::External(_) => vec![],
        }
    }

    fn srv(
        &self,
        key: &Key,
        service: &ServiceView,
        base: &str,
        wanted: impl Fn(&str, Protocol) -> bool,
    ) -> (Vec<Data>, Vec<Record>) {
        let mut targets: BTreeSet<(String, u16, IpAddr)> = BTreeSet::new();
        match &service.frontend {
            Frontend::Cluster(ips) => {
                for port in service.ports.iter().filter(|port| wanted(&port.name, port.protocol)) {
                    targets.extend(ips.iter().map(|ip| (base.to_owned(), port.port, *ip)));
                }
            }
            Frontend::Headless => {
                // Endpoints are reached directly, so the slice's own port numbers count.
                for slice in self.slices.get(key).into_iter().flat_map(BTreeMap::values) {
                    for (_, _, number) in slice.ports.iter().filter(|(name, protocol, _)| wanted(name, *protocol)) {
                        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
                            for ip in endpoint.addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()) {
                                let host = endpoint.hostname.clone().unwrap_or_else(|| dashed(ip));
                                targets.insert((format!("{host}.{base}"), *number, ip));
                            }
                        }
                    }
                }
            }
            Frontend::Pending | Frontend::External(_) => {}
        }
        let names: BTreeSet<(String, u16)> = targets.iter().map(|(name, port, _)| (name.clone(), *port)).collect();
        let weight = u16::try_from(100 / names.len().max(1)).unwrap_or(1).max(1);
        let srv = names.into_iter().map(|(target, port)| Data::Srv { port, weight, target }).collect();
        let glue: BTreeSet<Record> =
            targets.into_iter().map(|(name, _, ip)| Record { name, data: Data::Ip(ip) }).collect();
        (srv, glue.into_iter().collect())
    }

    fn reverse_name(&self, name: &str, ip: IpAddr, kind: Type) -> Answer {
        let Some(users) = self.by_ip.get(&ip) else { return Answer::NotOurs };
        if !matches!(kind, Type::Ptr | Type::Any) {
            return Answer::NoData;
        }
        let mut answers = vec![];
        for key in users {
            let base = format!("{}.{}.svc.{}", key.name, key.namespace, self.domain);
            let data = match self.services.get(key).map(|service| &service.frontend) {
                Some(Frontend::Headless) => {
                    let host = self.addresses(key).into_iter().find(|address| address.ip == ip).map(|a| a.host);
                    host.map(|host| format!("{host}.{base}"))
                }
                _ => Some(base),
            };
            answers.extend(data.map(|target| Record { name: name.to_owned(), data: Data::Ptr(target) }));
        }
        if answers.is_empty() { Answer::NotOurs } else { Answer::Records { answers, additional: vec![] } }
    }
}

/// Whether `label` is `_name`, as SRV names write ports and protocols.
fn is_label(label: &str, name: &str) -> bool {
    !name.is_empty() && label.strip_prefix('_') == Some(name)
}

fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    v4.or_else(|| label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6))
}

/// The address of a full reverse name.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let labels: Vec<&str> = labels.rsplit('.').collect();
        return labels.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let nibbles: String = name.strip_suffix(".ip6.arpa")?.rsplit('.').collect();
    if nibbles.len() != 32 || name.len() != 32 * 2 + 8 {
        return None;
    }
    u128::from_str_radix(&nibbles, 16).ok().map(|bits| IpAddr::V6(Ipv6Addr::from(bits)))
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;

//! The elements of the rule maps: typed keys and values, who claims them, and their text.

use crate::select::Endpoint;
use crate::table::Chain;
use crate::view::{Key as Owner, Protocol};
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The named maps and sets of the table. The order is that of text and of commands in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Map {
    /// Frontend to balancing chain, for everyone.
    ServiceIps,
    /// Frontend to balancing chain for clients from outside when the external traffic policy is Local.
    LocalIps,
    NodePorts,
    LocalNodePorts,
    /// Frontends to refuse or drop.
    NoEndpoints,
    NoEndpointsNodePorts,
    /// Frontend and slot to endpoint.
    Endpoints,
    LocalEndpoints,
    NodePortEndpoints,
    LocalNodePortEndpoints,
    /// Every cluster IP: other ports of it are refused.
    ClusterIps,
    /// Pods that may reach themselves through a service.
    Hairpin,
    /// Load balancer frontends with source ranges, and who is admitted.
    Firewall,
    FirewallSources,
}

impl Map {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceIps => "service_ips",
            Self::LocalIps => "local_ips",
            Self::NodePorts => "nodeports",
            Self::LocalNodePorts => "local_nodeports",
            Self::NoEndpoints => "no_endpoints",
            Self::NoEndpointsNodePorts => "no_endpoints_np",
            Self::Endpoints => "eps",
            Self::LocalEndpoints => "local_eps",
            Self::NodePortEndpoints => "np_eps",
            Self::LocalNodePortEndpoints => "local_np_eps",
            Self::ClusterIps => "cluster_ips",
            Self::Hairpin => "hairpin",
            Self::Firewall => "firewall",
            Self::FirewallSources => "firewall_sources",
        }
    }
}

/// Where clients address a service: a virtual IP or (without IP) a node port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    pub ip: Option<Ipv4Addr>,
    pub protocol: Protocol,
    pub port: u16,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ip) = self.ip {
            write!(f, "{ip} . ")?;
        }
        write!(f, "{} . {}", self.protocol.as_str(), self.port)
    }
}

/// Key of one element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Frontend(Frontend),
    Slot(Frontend, u32),
    Ip(Ipv4Addr),
    /// A frontend and an admitted source network.
    Source(Frontend, String),
}

/// Value of one element; sets have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Member,
    Drop,
    Goto(Chain),
    Endpoint(Endpoint),
}

/// Place of one element: its map and key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub Map, pub Key);

impl Place {
    fn write_key(&self, out: &mut impl fmt::Write) -> fmt::Result {
        match &self.1 {
            Key::Frontend(frontend) => write!(out, "{frontend}"),
            Key::Slot(frontend, slot) => write!(out, "{frontend} . {slot}"),
            Key::Ip(ip) if self.0 == Map::Hairpin => write!(out, "{ip} . {ip}"),
            Key::Ip(ip) => write!(out, "{ip}"),
            Key::Source(frontend, range) => write!(out, "{frontend} . {range}"),
        }
    }
}

impl Value {
    fn write(&self, out: &mut impl fmt::Write) -> fmt::Result {
        match self {
            Self::Member => Ok(()),
            Self::Drop => write!(out, " : drop"),
            Self::Goto(chain) => write!(out, " : goto {chain}"),
            Self::Endpoint(endpoint) => write!(out, " : {} . {}", endpoint.ip, endpoint.port),
        }
    }
}

/// Writes one `add element` or `delete element` command per map; `places` must be sorted.
pub fn write_command<'a>(
    out: &mut String,
    verb: &str,
    table: &str,
    places: impl Iterator<Item = (&'a Place, Option<Value>)>,
) -> fmt::Result {
    use fmt::Write;
    let mut open: Option<Map> = None;
    for (place, value) in places {
        if open == Some(place.0) {
            out.push_str(", ");
        } else {
            if open.is_some() {
                out.push_str(" }\n");
            }
            write!(out, "{verb} element ip {table} {} {{ ", place.0.name())?;
            open = Some(place.0);
        }
        place.write_key(out)?;
        if let Some(value) = value {
            value.write(out)?;
        }
    }
    if open.is_some() {
        out.push_str(" }\n");
    }
    Ok(())
}

/// All wanted elements. Two services may claim one place (the same external IP and port): the first by name has it, and
/// the next one takes over when it goes, whatever the order of events was.
#[derive(Default)]
pub struct Elements {
    claims: BTreeMap<Place, Vec<(Arc<Owner>, Value)>>,
    /// What touched places held at the last commit.
    before: BTreeMap<Place, Option<Value>>,
}

impl Elements {
    /// The element in force at `place`.
    pub fn get(&self, place: &Place) -> Option<Value> {
        self.claims.get(place).and_then(|claims| claims.first()).map(|(_, value)| *value)
    }

    /// Sets or withdraws the claim of `owner` on `place`.
    pub fn claim(&mut self, place: &Place, owner: &Arc<Owner>, value: Option<Value>) {
        if !self.before.contains_key(place) {
            self.before.insert(place.clone(), self.get(place));
        }
        let claims = self.claims.entry(place.clone()).or_default();
        match (claims.binary_search_by(|(known, _)| known.cmp(owner)), value) {
            (Ok(index), Some(value)) => claims[index].1 = value,
            (Ok(index), None) => drop(claims.remove(index)),
            (Err(index), Some(value)) => claims.insert(index, (owner.clone(), value)),
            (Err(_), None) => {}
        }
        if claims.is_empty() {
            self.claims.remove(place);
        }
    }

    /// Every element in force, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Place, Value)> {
        self.claims.iter().filter_map(|(place, claims)| Some((place, claims.first()?.1)))
    }

    /// The endpoints of one frontend in `map` with their slots.
    pub fn endpoints(&self, map: Map, frontend: Frontend) -> impl Iterator<Item = (u32, Endpoint)> {
        let range = Place(map, Key::Slot(frontend, 0))..=Place(map, Key::Slot(frontend, u32::MAX));
        self.claims.range(range).filter_map(|(place, claims)| match (&place.1, claims.first()?.1) {
            (Key::Slot(_, slot), Value::Endpoint(endpoint)) => Some((*slot, endpoint)),
            _ => None,
        })
    }

    /// Takes the places that changed since the last call: old and new value, never equal.
    pub fn commit(&mut self) -> Vec<(Place, Option<Value>, Option<Value>)> {
        let before = std::mem::take(&mut self.before);
        let with_new = before.into_iter().map(|(place, old)| {
            let new = self.get(&place);
            (place, old, new)
        });
        with_new.filter(|(_, old, new)| old != new).collect()
    }
}

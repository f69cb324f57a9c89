//! The elements of the rule maps: typed keys and values, who claims them, and their text.

use crate::select::Endpoint;
use crate::table::Chain;
use crate::view::{Key as Owner, Protocol};
use std::collections::{BTreeMap, BTreeSet};
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

/// The maps keyed by frontend.
const FRONTEND_MAPS: [Map; 12] = [
    Map::ServiceIps,
    Map::LocalIps,
    Map::NodePorts,
    Map::LocalNodePorts,
    Map::NoEndpoints,
    Map::NoEndpointsNodePorts,
    Map::Endpoints,
    Map::LocalEndpoints,
    Map::NodePortEndpoints,
    Map::LocalNodePortEndpoints,
    Map::Firewall,
    Map::FirewallSources,
];

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

impl Key {
    /// The frontend that the element belongs to.
    fn frontend(&self) -> Option<Frontend> {
        match self {
            Self::Frontend(frontend) | Self::Slot(frontend, _) | Self::Source(frontend, _) => Some(*frontend),
            Self::Ip(_) => None,
        }
    }
}

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

/// All wanted elements. Two services may claim one frontend (the same external IP and port): the first by name has it
/// with all its elements, and the next one takes over when it goes, whatever the order of events was.
#[derive(Default)]
pub struct Elements {
    claims: BTreeMap<Place, Vec<(Arc<Owner>, Value)>>,
    /// Who wants each frontend.
    owners: BTreeMap<Frontend, BTreeSet<Arc<Owner>>>,
    /// What touched places held at the last commit.
    before: BTreeMap<Place, Option<Value>>,
}

impl Elements {
    /// The element in force at `place`.
    pub fn get(&self, place: &Place) -> Option<Value> {
        self.in_force(place, self.claims.get(place)?)
    }

    fn in_force(&self, place: &Place, claims: &[(Arc<Owner>, Value)]) -> Option<Value> {
        let owner = match place.1.frontend() {
            Some(frontend) => self.owners.get(&frontend)?.first()?,
            None => &claims.first()?.0,
        };
        claims.iter().find(|(known, _)| known == owner).map(|(_, value)| *value)
    }

    fn touch(&mut self, place: &Place) {
        if !self.before.contains_key(place) {
            self.before.insert(place.clone(), self.get(place));
        }
    }

    /// Replaces the elements of one owner.
    pub fn replace(&mut self, owner: &Arc<Owner>, old: &BTreeMap<Place, Value>, new: &BTreeMap<Place, Value>) {
        let frontends = |all: &BTreeMap<Place, Value>| -> BTreeSet<Frontend> {
            all.keys().filter_map(|place| place.1.frontend()).collect()
        };
        let (before, after) = (frontends(old), frontends(new));
        for frontend in before.symmetric_difference(&after) {
            let owners = self.owners.get(frontend);
            // Whoever else wants it may now gain or lose every element of it.
            if owners.is_some_and(|owners| owners.iter().any(|other| other != owner)) {
                self.touch_frontend(*frontend);
            }
        }
        for place in old.keys().chain(new.keys()) {
            if old.get(place) != new.get(place) || place.1.frontend().is_some_and(|f| !before.contains(&f)) {
                self.touch(place);
            }
        }
        for frontend in before.difference(&after) {
            if let Some(owners) = self.owners.get_mut(frontend) {
                owners.remove(owner);
                if owners.is_empty() {
                    self.owners.remove(frontend);
                }
            }
        }
        for frontend in after.difference(&before) {
            self.owners.entry(*frontend).or_default().insert(owner.clone());
        }
        for place in old.keys().filter(|place| !new.contains_key(place)) {
            self.claim(place, owner, None);
        }
        for (place, value) in new.iter().filter(|(place, value)| old.get(place) != Some(value)) {
            self.claim(place, owner, Some(*value));
        }
    }

    fn touch_frontend(&mut self, frontend: Frontend) {
        let key = |place: &Place| place.1.frontend() == Some(frontend);
        let mut places: Vec<Place> = vec![];
        for map in FRONTEND_MAPS {
            for first in [Key::Frontend(frontend), Key::Slot(frontend, 0), Key::Source(frontend, String::new())] {
                places.extend(
                    self.claims
                        .range(Place(map, first)..)
                        .map(|(place, _)| place)
                        .take_while(|p| p.0 == map && key(p))
                        .cloned(),
                );
            }
        }
        places.iter().for_each(|place| self.touch(place));
    }

    fn claim(&mut self, place: &Place, owner: &Arc<Owner>, value: Option<Value>) {
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
        self.claims.iter().filter_map(|(place, claims)| Some((place, self.in_force(place, claims)?)))
    }

    /// The endpoints of one frontend in `map` with their slots.
    pub fn endpoints(&self, map: Map, frontend: Frontend) -> impl Iterator<Item = (u32, Endpoint)> {
        let range = Place(map, Key::Slot(frontend, 0))..=Place(map, Key::Slot(frontend, u32::MAX));
        self.claims.range(range).filter_map(|(place, claims)| match (&place.1, self.in_force(place, claims)?) {
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

//! The service proxy's desired state: takes objects one at a time, gives the full table or the smallest transaction.

use crate::affinity::Move;
use crate::elements::{Elements, Frontend, Key as ElementKey, Map, Place, Value, write_command};
use crate::frontends::{self, Slots};
use crate::select::{Endpoint, NodeIdentity};
use crate::table::{self, Balance, Chain};
use crate::view::{Key, Protocol, ServiceView, SliceView};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

/// Cluster DNS as answered by the node itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsRedirect {
    /// Cluster IP that pods have in resolv.conf.
    pub service_ip: Ipv4Addr,
    /// Its port, 53.
    pub port: u16,
    /// Where this node's DNS server listens.
    pub listener: SocketAddrV4,
}

/// What the rules depend on beside Services and EndpointSlices.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ProxyConfig {
    /// Name of the nftables table (family ip); one per cluster and node.
    pub table: String,
    pub node: NodeIdentity,
    /// Addresses on which node ports are served.
    pub node_ips: Vec<Ipv4Addr>,
    /// The whole pod network: its traffic keeps its source address.
    pub pod_cidrs: Vec<(Ipv4Addr, u8)>,
    /// This node's part of it: masqueraded when it leaves the pod network.
    pub own_pod_cidrs: Vec<(Ipv4Addr, u8)>,
    pub service_cidrs: Vec<(Ipv4Addr, u8)>,
    pub dns: Option<DnsRedirect>,
}

/// UDP flows to forget after a transaction, because conntrack would keep them on their old way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UdpFlush {
    pub frontend: Frontend,
    /// The endpoint that is gone; `None` means flows that began before there was any endpoint.
    pub endpoint: Option<Endpoint>,
}

/// One atomic change of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// For `nft -f -`.
    pub script: String,
    pub udp_flushes: Vec<UdpFlush>,
    /// Slots that clients with affinity may remember and that now mean something else.
    pub affinity_moves: Vec<Move>,
    /// Addresses that rules begin and cease to send connections to.
    pub endpoints_added: Vec<Ipv4Addr>,
    pub endpoints_removed: Vec<Ipv4Addr>,
}

type Change = (Place, Option<Value>, Option<Value>);

/// The state. Feed it, then call [`ProxyState::transaction`], or [`ProxyState::full`] to replace the table.
pub struct ProxyState {
    config: ProxyConfig,
    services: BTreeMap<Key, ServiceView>,
    slices: BTreeMap<Key, BTreeMap<String, SliceView>>,
    /// Slice to the service it belonged to when last seen.
    slice_owner: BTreeMap<Key, Key>,
    planned: BTreeMap<Key, (Arc<Key>, Slots, BTreeMap<Place, Value>)>,
    elements: Elements,
    chains: BTreeSet<Balance>,
    stale: BTreeSet<Key>,
    /// Services with a health check.
    checked: BTreeSet<Key>,
    /// How many elements send to each address.
    uses: BTreeMap<Ipv4Addr, u32>,
}

impl ProxyState {
    pub fn new(config: ProxyConfig) -> Self {
        let mut state = Self {
            config: ProxyConfig::default(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            slice_owner: BTreeMap::new(),
            planned: BTreeMap::new(),
            elements: Elements::default(),
            chains: table::chains_in_advance().collect(),
            stale: BTreeSet::new(),
            checked: BTreeSet::new(),
            uses: BTreeMap::new(),
        };
        state.set_config(config);
        state
    }

    pub fn config(&self) -> &ProxyConfig {
        &self.config
    }

    /// Replaces the configuration. The next change must be a [`ProxyState::full`] one.
    pub fn set_config(&mut self, config: ProxyConfig) {
        let owner = Arc::new(Key::new("", "dns"));
        let places = |config: &ProxyConfig| -> BTreeMap<Place, Value> {
            let place = |redirect: DnsRedirect, protocol| {
                let frontend = Frontend { ip: Some(redirect.service_ip), protocol, port: redirect.port };
                (Place(Map::ServiceIps, ElementKey::Frontend(frontend)), Value::Goto(Chain::Dns))
            };
            let both = config.dns.into_iter().flat_map(|dns| [Protocol::Tcp, Protocol::Udp].map(|p| place(dns, p)));
            both.collect()
        };
        self.elements.replace(&owner, &places(&self.config), &places(&config));
        self.config = config;
        self.stale.extend(self.services.keys().cloned());
    }

    /// Sets or removes a Service.
    pub fn set_service(&mut self, key: Key, service: Option<ServiceView>) {
        match &service {
            Some(view) if view.health_check_port != 0 => drop(self.checked.insert(key.clone())),
            _ => drop(self.checked.remove(&key)),
        }
        let changed = match service {
            Some(view) => self.services.insert(key.clone(), view.clone()).as_ref() != Some(&view),
            None => self.services.remove(&key).is_some(),
        };
        if changed {
            self.stale.insert(key);
        }
    }

    /// Sets or removes an EndpointSlice.
    pub fn set_slice(&mut self, key: Key, slice: Option<SliceView>) {
        let owner = slice.as_ref().map(|slice| slice.service.clone());
        if let Some(old) = self.slice_owner.get(&key).filter(|old| Some(*old) != owner.as_ref()).cloned() {
            if let Some(slices) = self.slices.get_mut(&old) {
                slices.remove(&key.name);
                if slices.is_empty() {
                    self.slices.remove(&old);
                }
            }
            self.slice_owner.remove(&key);
            self.stale.insert(old);
        }
        if let (Some(owner), Some(slice)) = (owner, slice) {
            self.slice_owner.insert(key.clone(), owner.clone());
            let slices = self.slices.entry(owner.clone()).or_default();
            if slices.get(&key.name) != Some(&slice) {
                slices.insert(key.name, slice);
                self.stale.insert(owner);
            }
        }
    }

    /// Keys of all known Services and of all slices, for a caller that was given a new complete list.
    pub fn known(&self) -> (BTreeSet<Key>, BTreeSet<Key>) {
        (self.services.keys().cloned().collect(), self.slice_owner.keys().cloned().collect())
    }

    /// The Services with a health check by its port, with the number of their ready endpoints on this node.
    pub fn health_checks(&self) -> BTreeMap<u16, (Key, usize)> {
        let checked = self.checked.iter().filter_map(|key| Some((key, self.services.get(key)?)));
        let counted = checked.map(|(key, service)| {
            let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values);
            let here = slices
                .flat_map(|slice| &slice.endpoints)
                .filter(|endpoint| endpoint.ready && endpoint.node.as_deref() == Some(self.config.node.name.as_str()));
            let addresses: BTreeSet<&String> = here.filter_map(|endpoint| endpoint.addresses.first()).collect();
            (service.health_check_port, (key.clone(), addresses.len()))
        });
        counted.collect()
    }

    fn replan(&mut self) {
        for key in std::mem::take(&mut self.stale) {
            let (owner, mut slots, old) = match self.planned.remove(&key) {
                Some(planned) => planned,
                None => (Arc::new(key.clone()), Slots::new(), BTreeMap::new()),
            };
            let new = match self.services.get(&key) {
                Some(service) => {
                    let slices: Vec<&SliceView> =
                        self.slices.get(&key).into_iter().flat_map(|all| all.values()).collect();
                    frontends::plan(service, &slices, &self.config, &mut slots)
                }
                None => BTreeMap::new(),
            };
            self.elements.replace(&owner, &old, &new);
            if !new.is_empty() {
                self.planned.insert(key, (owner, slots, new));
            }
        }
    }

    /// Replaces the whole table in one transaction, whatever it held. UDP flows are flushed by the difference to what
    /// this state last gave out.
    pub fn full(&mut self) -> Transaction {
        self.replan();
        let changes = self.elements.commit();
        self.chains = table::chains_in_advance().collect();
        let mut script = String::new();
        let _ = table::write_base(&mut script, &self.config);
        let wanted: Vec<Balance> = self.elements.iter().filter_map(|(_, value)| balance(value)).collect();
        self.add_chains(&mut script, wanted);
        let all = self.elements.iter().map(|(place, value)| (place, Some(value)));
        let _ = write_command(&mut script, "add", &self.config.table, all);
        let (endpoints_added, endpoints_removed) = self.count_uses(&changes);
        let udp_flushes = self.udp_flushes(&changes);
        Transaction { script, udp_flushes, affinity_moves: vec![], endpoints_added, endpoints_removed }
    }

    /// The smallest transaction from what was last given out to what is wanted now; `None` when nothing changed.
    pub fn transaction(&mut self) -> Option<Transaction> {
        self.replan();
        let changes = self.elements.commit();
        if changes.is_empty() {
            return None;
        }
        let table = self.config.table.clone();
        let mut script = String::new();
        self.add_chains(&mut script, changes.iter().filter_map(|(_, _, new)| balance((*new)?)).collect());
        let removed = changes.iter().filter(|(_, old, _)| old.is_some()).map(|(place, _, _)| (place, None));
        let _ = write_command(&mut script, "delete", &table, removed);
        let added = changes.iter().filter(|(_, _, new)| new.is_some()).map(|(place, _, new)| (place, *new));
        let _ = write_command(&mut script, "add", &table, added);
        let affinity_moves = self.affinity_moves(&changes);
        let (endpoints_added, endpoints_removed) = self.count_uses(&changes);
        let udp_flushes = self.udp_flushes(&changes);
        Some(Transaction { script, udp_flushes, affinity_moves, endpoints_added, endpoints_removed })
    }

    fn add_chains(&mut self, script: &mut String, wanted: Vec<Balance>) {
        for chain in wanted {
            if self.chains.insert(chain) {
                let _ = table::write_chain(script, &self.config.table, &chain);
            }
        }
    }

    fn count_uses(&mut self, changes: &[Change]) -> (Vec<Ipv4Addr>, Vec<Ipv4Addr>) {
        let mut touched = BTreeMap::new();
        for (_, old, new) in changes {
            for (value, up) in [(old, false), (new, true)] {
                let Some(Value::Endpoint(endpoint)) = value else { continue };
                let uses = self.uses.entry(endpoint.ip).or_default();
                touched.entry(endpoint.ip).or_insert(*uses);
                *uses = if up { *uses + 1 } else { uses.saturating_sub(1) };
            }
        }
        let (mut added, mut removed) = (vec![], vec![]);
        for (ip, before) in touched {
            match (before, self.uses.get(&ip).copied().unwrap_or(0)) {
                (0, 1..) => added.push(ip),
                (1.., 0) => removed.push(ip),
                _ => {}
            }
        }
        self.uses.retain(|_, uses| *uses > 0);
        (added, removed)
    }

    fn udp_flushes(&self, changes: &[Change]) -> Vec<UdpFlush> {
        let mut flushes = BTreeSet::new();
        for (place, old, new) in changes {
            match (&place.1, old, new) {
                (ElementKey::Slot(frontend, _), Some(Value::Endpoint(endpoint)), _)
                    if frontend.protocol == Protocol::Udp
                        && !self.elements.endpoints(place.0, *frontend).any(|(_, kept)| kept == *endpoint) =>
                {
                    flushes.insert(UdpFlush { frontend: *frontend, endpoint: Some(*endpoint) });
                }
                (ElementKey::Frontend(frontend), None, Some(Value::Goto(Chain::Balance(_) | Chain::Dns)))
                    if frontend.protocol == Protocol::Udp =>
                {
                    flushes.insert(UdpFlush { frontend: *frontend, endpoint: None });
                }
                _ => {}
            }
        }
        flushes.into_iter().collect()
    }

    fn affinity_moves(&self, changes: &[Change]) -> Vec<Move> {
        let verdict_map = |map| match map {
            Map::Endpoints => Map::ServiceIps,
            Map::LocalEndpoints => Map::LocalIps,
            Map::NodePortEndpoints => Map::NodePorts,
            _ => Map::LocalNodePorts,
        };
        let mut moves = vec![];
        for (place, old, _) in changes {
            let (ElementKey::Slot(frontend, from), Some(Value::Endpoint(endpoint))) = (&place.1, old) else { continue };
            let verdict = Place(verdict_map(place.0), ElementKey::Frontend(*frontend));
            let sticky = |value: Option<Value>| value.and_then(balance).is_some_and(|chain| chain.sticky.is_some());
            let was =
                changes.binary_search_by(|(other, _, _)| other.cmp(&verdict)).ok().and_then(|index| changes[index].1);
            if !sticky(self.elements.get(&verdict)) && !sticky(was) {
                continue;
            }
            let to =
                self.elements.endpoints(place.0, *frontend).find(|(_, kept)| kept == endpoint).map(|(slot, _)| slot);
            moves.push(Move { frontend: *frontend, from: *from, to });
        }
        moves
    }
}

fn balance(value: Value) -> Option<Balance> {
    match value {
        Value::Goto(Chain::Balance(chain)) => Some(chain),
        _ => None,
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;

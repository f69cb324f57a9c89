//! The elements that one Service contributes to the rule maps.

use crate::elements::{Frontend, Key, Map, Place, Value};
use crate::proxy::ProxyConfig;
use crate::select::{Endpoint, Selection, select};
use crate::slots;
use crate::table::{Balance, Chain};
use crate::view::{Frontend as ServiceFrontend, Protocol, ServicePort, ServiceView, SliceView};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Which list of endpoints a slot numbering belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    Internal,
    External,
    Local,
}

/// Slot numberings of one service, kept from one planning to the next.
pub type Slots = BTreeMap<(String, Protocol, List), Vec<Endpoint>>;

/// A rule list of one frontend: which verdict map leads to it, and where its endpoints are.
struct Target {
    verdicts: Map,
    endpoints: Map,
    local: bool,
}

const CLUSTER: Target = Target { verdicts: Map::ServiceIps, endpoints: Map::Endpoints, local: false };
const LOCAL: Target = Target { verdicts: Map::LocalIps, endpoints: Map::LocalEndpoints, local: true };
const NODE_PORT: Target = Target { verdicts: Map::NodePorts, endpoints: Map::NodePortEndpoints, local: false };
const LOCAL_NODE_PORT: Target =
    Target { verdicts: Map::LocalNodePorts, endpoints: Map::LocalNodePortEndpoints, local: true };

/// Plans one service. `slots` holds its numbering before and after.
pub fn plan(
    service: &ServiceView,
    slices: &[&SliceView],
    config: &ProxyConfig,
    slots: &mut Slots,
) -> BTreeMap<Place, Value> {
    let mut plan = Plan { service, old: std::mem::take(slots), slots, places: BTreeMap::new() };
    let ServiceFrontend::Cluster(ips) = &service.frontend else { return plan.places };
    if service.other_proxy {
        return plan.places;
    }
    let cluster_ips = ips.iter().filter_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    for cluster_ip in cluster_ips {
        plan.places.insert(Place(Map::ClusterIps, Key::Ip(cluster_ip)), Value::Member);
        for port in &service.ports {
            let selection = select(slices.iter().copied(), port, &config.node);
            plan.port(cluster_ip, port, &selection, config);
        }
    }
    plan.places
}

struct Plan<'a> {
    service: &'a ServiceView,
    old: Slots,
    slots: &'a mut Slots,
    places: BTreeMap<Place, Value>,
}

impl Plan<'_> {
    fn port(&mut self, cluster_ip: Ipv4Addr, port: &ServicePort, selection: &Selection, config: &ProxyConfig) {
        for ip in &selection.here {
            self.places.insert(Place(Map::Hairpin, Key::Ip(*ip)), Value::Member);
        }
        let virtual_ip = |ip| Frontend { ip: Some(ip), protocol: port.protocol, port: port.port };
        let internal = if self.service.internal_local { &selection.local } else { &selection.cluster };
        let endpoints = self.number(port, List::Internal, internal);
        // Endpoints exist, but none where this policy allows: silence, as upstream does, since a retry may find one.
        let missing = |exists: bool| if exists { Value::Drop } else { Value::Goto(Chain::Reject) };
        if config.dns.is_some_and(|dns| dns.service_ip == cluster_ip && port.port == dns.port) {
            return;
        }
        self.frontend(virtual_ip(cluster_ip), &CLUSTER, &endpoints, missing(!selection.cluster.is_empty()));

        let mut outside: Vec<_> = self.service.external_ips.iter().chain(&self.service.load_balancer_ips).collect();
        outside.sort();
        outside.dedup();
        if outside.is_empty() && port.node_port == 0 {
            return;
        }
        let cluster = self.number(port, List::External, &selection.cluster);
        let local = self.service.external_local.then(|| self.number(port, List::Local, &selection.local));
        for ip in outside {
            let frontend = virtual_ip(*ip);
            self.frontend(frontend, &CLUSTER, &cluster, Value::Goto(Chain::Reject));
            self.local(frontend, &LOCAL, local.as_deref(), !cluster.is_empty());
        }
        for ip in &self.service.load_balancer_ips {
            self.firewall(virtual_ip(*ip));
        }
        if port.node_port != 0 {
            let frontend = Frontend { ip: None, protocol: port.protocol, port: port.node_port };
            self.frontend(frontend, &NODE_PORT, &cluster, Value::Goto(Chain::Reject));
            self.local(frontend, &LOCAL_NODE_PORT, local.as_deref(), !cluster.is_empty());
        }
    }

    fn number(&mut self, port: &ServicePort, list: List, wanted: &[Endpoint]) -> Vec<Endpoint> {
        let key = (port.name.clone(), port.protocol, list);
        let old = self.old.get(&key).map(Vec::as_slice).unwrap_or_default();
        let assigned = slots::assign(old, wanted);
        if !assigned.is_empty() {
            self.slots.insert(key, assigned.clone());
        }
        assigned
    }

    fn frontend(&mut self, frontend: Frontend, target: &Target, endpoints: &[Endpoint], missing: Value) {
        if endpoints.is_empty() {
            let map = if frontend.ip.is_some() { Map::NoEndpoints } else { Map::NoEndpointsNodePorts };
            self.places.insert(Place(map, Key::Frontend(frontend)), missing);
            return;
        }
        let chain = Balance {
            local: target.local,
            node_port: frontend.ip.is_none(),
            slots: u32::try_from(endpoints.len()).unwrap_or(u32::MAX),
            sticky: self.service.affinity_seconds,
        };
        self.places.insert(Place(target.verdicts, Key::Frontend(frontend)), Value::Goto(Chain::Balance(chain)));
        for (slot, endpoint) in (0..).zip(endpoints) {
            self.places.insert(Place(target.endpoints, Key::Slot(frontend, slot)), Value::Endpoint(*endpoint));
        }
    }

    /// Clients from outside under external policy Local; without any endpoint the cluster-wide refusal stands.
    fn local(&mut self, frontend: Frontend, target: &Target, local: Option<&[Endpoint]>, exists: bool) {
        match local {
            Some([]) if exists => {
                self.places.insert(Place(target.verdicts, Key::Frontend(frontend)), Value::Drop);
            }
            Some([]) | None => {}
            Some(endpoints) => self.frontend(frontend, target, endpoints, Value::Drop),
        }
    }

    fn firewall(&mut self, frontend: Frontend) {
        for range in &self.service.source_ranges {
            self.places.insert(Place(Map::Firewall, Key::Frontend(frontend)), Value::Member);
            self.places.insert(Place(Map::FirewallSources, Key::Source(frontend, range.clone())), Value::Member);
        }
    }
}

//! Which endpoints may take a service's traffic on this node: readiness, termination fallback, locality, topology hints.

use crate::view::{EndpointView, ServicePort, SliceView};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// An address and port that traffic is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    pub ip: Ipv4Addr,
    pub port: u16,
}

/// Who this node is, as far as endpoint selection cares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeIdentity {
    pub name: String,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

/// The endpoints of one service port as seen from one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// For traffic policy Cluster.
    pub cluster: Vec<Endpoint>,
    /// For traffic policy Local.
    pub local: Vec<Endpoint>,
    /// Endpoints whose pod may be on this node: they can be their own clients.
    pub here: Vec<Ipv4Addr>,
}

/// Selects by the rules of Kubernetes' service proxies: ready endpoints; if there are none, those that are terminating
/// but still serving. Topology hints apply to ready endpoints only, and only when every one of them has a hint.
pub fn select<'a>(slices: impl Iterator<Item = &'a SliceView>, port: &ServicePort, node: &NodeIdentity) -> Selection {
    let mut found: BTreeMap<Endpoint, &EndpointView> = BTreeMap::new();
    for slice in slices.filter(|slice| !slice.ipv6 && !slice.not_proxied) {
        let numbers = slice.ports.iter().filter(|(name, protocol, _)| *name == port.name && *protocol == port.protocol);
        for (_, _, number) in numbers {
            for view in &slice.endpoints {
                // Only the first address counts: the API calls the others fungible.
                let Some(ip) = view.addresses.first().and_then(|ip| ip.parse().ok()) else { continue };
                let endpoint = Endpoint { ip, port: *number };
                // The same address in two slices: a pod that moves between slices must not look gone.
                if found.get(&endpoint).is_none_or(|known| rank(view) > rank(known)) {
                    found.insert(endpoint, view);
                }
            }
        }
    }
    let is_here = |view: &EndpointView| view.node.as_deref() == Some(node.name.as_str());
    let ready: Vec<_> = found.iter().filter(|(_, view)| view.ready).map(|(e, v)| (*e, *v)).collect();
    let leaving = |here_only: bool| {
        let usable = |view: &EndpointView| view.serving && view.terminating && (!here_only || is_here(view));
        found.iter().filter(move |(_, view)| usable(view)).map(|(e, _)| *e).collect::<Vec<_>>()
    };
    let mut cluster = by_topology(&ready, node);
    if cluster.is_empty() {
        cluster = leaving(false);
    }
    let mut local: Vec<_> = ready.iter().filter(|(_, view)| is_here(view)).map(|(e, _)| *e).collect();
    if local.is_empty() {
        local = leaving(true);
    }
    let here = found.iter().filter(|(_, view)| view.node.is_none() || is_here(view)).map(|(e, _)| e.ip).collect();
    Selection { cluster, local, here }
}

fn rank(view: &EndpointView) -> (bool, bool) {
    (view.ready, view.serving)
}

fn by_topology(ready: &[(Endpoint, &EndpointView)], node: &NodeIdentity) -> Vec<Endpoint> {
    let all = || ready.iter().map(|(e, _)| *e).collect::<Vec<_>>();
    let pick = |wanted: Option<&String>, hints: fn(&EndpointView) -> &Vec<String>| {
        let wanted = wanted?;
        if ready.iter().any(|(_, view)| hints(view).is_empty()) {
            return None;
        }
        let chosen: Vec<_> = ready.iter().filter(|(_, view)| hints(view).contains(wanted)).map(|(e, _)| *e).collect();
        (!chosen.is_empty()).then_some(chosen)
    };
    pick(Some(&node.name), |view| &view.nodes)
        .or_else(|| pick(node.zone.as_ref(), |view| &view.zones))
        .unwrap_or_else(all)
}

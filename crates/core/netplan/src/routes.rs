//! Nodes to the routes and tunnel entries of one node, and their differences.
//!
//! A peer in a directly connected subnet is reached by a plain route (no overhead); any other through VXLAN. The
//! tunnel's inner addresses need no exchange: a node's tunnel end has the network address of its pod CIDR, and its MAC
//! is computed from the node's address.

use crate::view::parse_cidr;
use k8s_openapi::api::core::v1::Node;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// An IPv4 network.
pub type Cidr = (Ipv4Addr, u8);

/// What matters of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// `InternalIP`.
    pub ip: Option<Ipv4Addr>,
    /// `spec.podCIDR`.
    pub pod_cidr: Option<Cidr>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

impl From<&Node> for NodeView {
    fn from(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let cidrs = spec.into_iter().flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(spec.pod_cidr.iter()));
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        Self {
            ip: addresses.filter(|a| a.type_ == "InternalIP").find_map(|a| a.address.parse().ok()),
            pod_cidr: cidrs.into_iter().find_map(|cidr| parse_cidr(cidr)),
            zone: node.metadata.labels.as_ref().and_then(|labels| labels.get("topology.kubernetes.io/zone")).cloned(),
        }
    }
}

/// This node's own place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub name: String,
    /// Directly connected networks; empty forces VXLAN.
    pub on_link: Vec<Cidr>,
}

/// How the pods of one peer are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Gateway(Ipv4Addr),
    /// Through the tunnel to this peer.
    Vxlan(Ipv4Addr),
}

/// Pod CIDR of a peer to the way there.
pub type Plan = BTreeMap<Cidr, Way>;

/// The MAC address of a node's tunnel end: locally administered, then the node's address.
pub fn tunnel_mac(node_ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = node_ip.octets();
    [0x0a, 0x54, a, b, c, d]
}

pub fn contains(network: Cidr, ip: Ipv4Addr) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(network.1)).unwrap_or(0);
    u32::from(network.0) & mask == u32::from(ip) & mask
}

/// Plans the ways to all peers. Should two nodes claim one CIDR, the first by name has it.
pub fn plan(place: &Place, nodes: &BTreeMap<String, NodeView>) -> Plan {
    let mut plan = Plan::new();
    let own = nodes.get(&place.name).and_then(|node| node.pod_cidr);
    for (_, peer) in nodes.iter().filter(|(name, _)| **name != place.name) {
        let (Some(ip), Some(cidr)) = (peer.ip, peer.pod_cidr) else { continue };
        // A CIDR that is ours too would cut our own pods off.
        if Some(cidr) == own {
            continue;
        }
        let near = place.on_link.iter().any(|network| contains(*network, ip));
        plan.entry(cidr).or_insert(if near { Way::Gateway(ip) } else { Way::Vxlan(ip) });
    }
    plan
}

/// Ways to remove and ways to set, in this order, to get from `old` to `new`.
pub fn diff(old: &Plan, new: &Plan) -> (Vec<(Cidr, Way)>, Vec<(Cidr, Way)>) {
    let missing = |from: &Plan, to: &Plan| {
        from.iter().filter(|(cidr, way)| to.get(cidr) != Some(way)).map(|(c, w)| (*c, *w)).collect::<Vec<_>>()
    };
    (missing(old, new), missing(new, old))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(text: &str) -> BTreeMap<String, NodeView> {
        let parse = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let view = NodeView { ip: words[1].parse().ok(), pod_cidr: parse_cidr(words[2]), zone: None };
            (words[0].to_owned(), view)
        };
        text.split(',').map(str::trim).filter(|line| !line.is_empty()).map(parse).collect()
    }

    fn check(before: &str, after: &str, expected: &str) {
        let place = Place { name: "a".to_owned(), on_link: vec![([10, 0, 0, 0].into(), 24)] };
        let (gone, new) = diff(&plan(&place, &nodes(before)), &plan(&place, &nodes(after)));
        let text = |verb: &str, all: Vec<(Cidr, Way)>| {
            all.iter().map(|((ip, length), way)| format!("{verb}{ip}/{length} {way:?}")).collect::<Vec<_>>()
        };
        assert_eq!([text("-", gone), text("+", new)].concat().join(", "), expected, "{before} => {after}");
    }

    #[test]
    fn near_peers_get_routes_and_far_ones_the_tunnel() {
        let own = "a 10.0.0.1 10.200.1.0/24";
        check("", own, "");
        check(own, &format!("{own}, b 10.0.0.2 10.200.2.0/24"), "+10.200.2.0/24 Gateway(10.0.0.2)");
        check(own, &format!("{own}, b 10.0.1.2 10.200.2.0/24"), "+10.200.2.0/24 Vxlan(10.0.1.2)");
        check(own, &format!("{own}, b 10.0.1.2 - , c 10.0.0.3 10.200.1.0/24"), "");
        check(
            &format!("{own}, b 10.0.0.2 10.200.2.0/24"),
            &format!("{own}, b 10.0.9.2 10.200.2.0/24"),
            "-10.200.2.0/24 Gateway(10.0.0.2), +10.200.2.0/24 Vxlan(10.0.9.2)",
        );
        check(&format!("{own}, b 10.0.0.2 10.200.2.0/24"), own, "-10.200.2.0/24 Gateway(10.0.0.2)");
    }
}

//! From the rules of a policy to matches on packets, whose large parts are named sets shared by equal content.

use super::view::{Direction, Peer, PolicyView, Port, PortNumber, Rule};
use crate::routes::Cidr;
use crate::view::Protocol;
use meta::labels::Selector;
use std::collections::BTreeMap;

/// Which namespaces a selection of pods looks into.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Namespaces {
    Any,
    Is(String),
    Match(Selector),
}

/// A selection of pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    pub namespaces: Namespaces,
    pub pods: Selector,
}

/// First and last address of a range, both in it.
pub type Range = (u32, u32);
/// Protocol, first and last port.
pub type Ports = (Protocol, u16, u16);

/// The content of a named set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetKey {
    /// Addresses of pods.
    Pods(Scope),
    /// Address, protocol and number of the pods' ports of that name.
    NamedPort(Scope, String, Protocol),
    Blocks(Vec<Range>),
    Ports(Vec<Ports>),
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerMatch {
    Any,
    Pods(Scope),
    Blocks(Vec<Range>),
}

/// Which port is connected to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortMatch {
    Any,
    Numbers(Vec<Ports>),
    /// Pods, name, protocol: the destination is one of these pods and the port has that name there.
    Named(Scope, String, Protocol),
}

/// One way for a connection to be admitted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    pub peer: PeerMatch,
    pub port: PortMatch,
}

/// What one policy admits in one direction.
pub type Matches = Vec<Match>;

/// Compiles both directions of a policy of `namespace`.
pub fn compile(policy: &PolicyView, namespace: &str) -> BTreeMap<Direction, Matches> {
    let selected = Scope { namespaces: Namespaces::Is(namespace.to_owned()), pods: policy.pods.clone() };
    let both = [Direction::Egress, Direction::Ingress].into_iter();
    let compiled = both.filter_map(|direction| {
        let rules = policy.rules(direction)?;
        let mut all: Matches = rules.iter().flat_map(|rule| matches(rule, direction, namespace, &selected)).collect();
        all.sort();
        all.dedup();
        Some((direction, all))
    });
    compiled.collect()
}

fn matches(rule: &Rule, direction: Direction, namespace: &str, selected: &Scope) -> Matches {
    let peers = rule.peers.as_ref().map_or_else(|| vec![PeerMatch::Any], |peers| peer_matches(peers, namespace));
    let mut all = vec![];
    for peer in &peers {
        let Some(ports) = &rule.ports else {
            all.push(Match { peer: peer.clone(), port: PortMatch::Any });
            continue;
        };
        let numbers = merge_ports(ports);
        if !numbers.is_empty() {
            all.push(Match { peer: peer.clone(), port: PortMatch::Numbers(numbers) });
        }
        for port in ports {
            let PortNumber::Named(name) = &port.number else { continue };
            let named = |scope: &Scope| PortMatch::Named(scope.clone(), name.clone(), port.protocol);
            all.push(match (direction, peer) {
                (Direction::Ingress, peer) => Match { peer: peer.clone(), port: named(selected) },
                // The set of named ports holds the peers' own addresses, which says both at once.
                (Direction::Egress, PeerMatch::Pods(scope)) => Match { peer: PeerMatch::Any, port: named(scope) },
                (Direction::Egress, peer) => Match { peer: peer.clone(), port: named(&everywhere()) },
            });
        }
    }
    all
}

fn everywhere() -> Scope {
    Scope { namespaces: Namespaces::Any, pods: Selector::default() }
}

fn peer_matches(peers: &[Peer], namespace: &str) -> Vec<PeerMatch> {
    let (mut all, mut ranges) = (vec![], vec![]);
    for peer in peers {
        match peer {
            Peer::Block { cidr, except } => ranges.extend(block(*cidr, except)),
            Peer::Pods { namespaces, pods } => {
                let namespaces =
                    namespaces.clone().map_or_else(|| Namespaces::Is(namespace.to_owned()), Namespaces::Match);
                all.push(PeerMatch::Pods(Scope { namespaces, pods: pods.clone() }));
            }
        }
    }
    let ranges = merge(ranges);
    match ranges.as_slice() {
        [] => {}
        [(0, u32::MAX)] => all.push(PeerMatch::Any),
        _ => all.push(PeerMatch::Blocks(ranges)),
    }
    all
}

fn range((ip, length): Cidr) -> Range {
    let first = u32::from(ip);
    (first, first | u32::MAX.checked_shr(length.into()).unwrap_or(0))
}

/// The ranges of a block without its exceptions.
fn block(cidr: Cidr, except: &[Cidr]) -> Vec<Range> {
    let holes = merge(except.iter().map(|hole| range(*hole)).collect());
    let (mut next, last) = (u64::from(range(cidr).0), u64::from(range(cidr).1));
    let mut all = vec![];
    let mut add = |first: u64, last: u64| {
        if let (true, Ok(first), Ok(last)) = (first <= last, u32::try_from(first), u32::try_from(last)) {
            all.push((first, last));
        }
    };
    for (first, end) in holes.into_iter().map(|(a, b)| (u64::from(a), u64::from(b))) {
        if end < next {
            continue;
        }
        if first > next {
            add(next, (first - 1).min(last));
        }
        next = end + 1;
        if next > last {
            return all;
        }
    }
    add(next, last);
    all
}

/// Sorted, with overlapping and touching ranges made one: the kernel refuses overlaps.
fn merge(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = vec![];
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(open) if u64::from(first) <= u64::from(open.1) + 1 => open.1 = open.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn merge_ports(ports: &[Port]) -> Vec<Ports> {
    let mut by_protocol: BTreeMap<Protocol, Vec<Range>> = BTreeMap::new();
    for port in ports {
        if let PortNumber::Range(first, last) = port.number {
            by_protocol.entry(port.protocol).or_default().push((first.into(), last.into()));
        }
    }
    let flat = by_protocol.into_iter().flat_map(|(protocol, ranges)| {
        merge(ranges)
            .into_iter()
            .filter_map(move |(first, last)| Some((protocol, u16::try_from(first).ok()?, u16::try_from(last).ok()?)))
    });
    flat.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        crate::view::parse_cidr(text).unwrap()
    }

    #[test]
    fn exceptions_cut_holes_into_blocks() {
        for (whole, except, expected) in [
            ("10.0.0.0/24", "", "10.0.0.0-10.0.0.255"),
            ("10.0.0.0/24", "10.0.0.0/25", "10.0.0.128-10.0.0.255"),
            ("10.0.0.0/24", "10.0.0.128/25", "10.0.0.0-10.0.0.127"),
            ("10.0.0.0/24", "10.0.0.16/28 10.0.0.24/29 10.0.0.32/32", "10.0.0.0-10.0.0.15 10.0.0.33-10.0.0.255"),
            ("10.0.0.0/24", "10.0.0.0/8", ""),
            ("10.0.0.0/24", "10.0.1.0/24", "10.0.0.0-10.0.0.255"),
            ("0.0.0.0/0", "255.255.255.255/32", "0.0.0.0-255.255.255.254"),
            ("0.0.0.0/0", "0.0.0.0/1 128.0.0.0/1", ""),
        ] {
            let holes: Vec<Cidr> = except.split_whitespace().map(cidr).collect();
            let show = |(a, b): &Range| format!("{}-{}", std::net::Ipv4Addr::from(*a), std::net::Ipv4Addr::from(*b));
            let text: Vec<String> = block(cidr(whole), &holes).iter().map(show).collect();
            assert_eq!(text.join(" "), expected, "{whole} except {except}");
        }
    }
}

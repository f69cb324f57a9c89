//! The chains: one per policy and direction, one per combination of policies that select a pod, shared by equal content.

use super::compile::{Match, Matches, PeerMatch, PortMatch, SetKey};
use super::sets::{Id, Known, Sets};
use super::view::Direction;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    /// What one policy admits.
    Policy(Direction, Matches),
    /// The policies that select a pod, tried one after the other; who matches none is turned away.
    Pod(Direction, Vec<Id>),
}

struct Chain {
    content: Content,
    uses: u32,
    /// Sets that its rules name, in the order of its matches.
    sets: Vec<Id>,
}

/// All chains in use.
#[derive(Default)]
pub struct Chains {
    all: BTreeMap<Id, Chain>,
    ids: BTreeMap<Content, Id>,
    last: Id,
    pub fresh: BTreeSet<Id>,
    pub dead: BTreeSet<Id>,
}

/// The sets that a match needs by name; small conditions are written into the rule.
fn sets_of(one: &Match) -> Vec<SetKey> {
    let peer = match &one.peer {
        PeerMatch::Pods(scope) => Some(SetKey::Pods(scope.clone())),
        PeerMatch::Blocks(ranges) if ranges.len() > 1 => Some(SetKey::Blocks(ranges.clone())),
        PeerMatch::Any | PeerMatch::Blocks(_) => None,
    };
    let port = match &one.port {
        PortMatch::Numbers(ports) if ports.len() > 1 => Some(SetKey::Ports(ports.clone())),
        PortMatch::Named(scope, name, protocol) => Some(SetKey::NamedPort(scope.clone(), name.clone(), *protocol)),
        PortMatch::Any | PortMatch::Numbers(_) => None,
    };
    peer.into_iter().chain(port).collect()
}

impl Chains {
    /// The chain of a pod that these policies select; every one of its parts is used once more.
    pub fn acquire(&mut self, direction: Direction, policies: &[Matches], sets: &mut Sets, known: &Known) -> Id {
        let mut parts: Vec<Id> = vec![];
        for matches in policies {
            let id = self.make(Content::Policy(direction, matches.clone()), sets, known);
            if parts.contains(&id) {
                self.release(id, sets);
            } else {
                parts.push(id);
            }
        }
        let content = Content::Pod(direction, parts.clone());
        let existed = self.ids.contains_key(&content);
        let id = self.make(content, sets, known);
        if existed {
            // Its parts are held by it already.
            parts.into_iter().for_each(|part| self.release(part, sets));
        }
        id
    }

    fn make(&mut self, content: Content, sets: &mut Sets, known: &Known) -> Id {
        if let Some(id) = self.ids.get(&content) {
            if let Some(chain) = self.all.get_mut(id) {
                chain.uses += 1;
            }
            return *id;
        }
        self.last += 1;
        let named = match &content {
            Content::Policy(_, matches) => matches.iter().flat_map(sets_of).collect(),
            Content::Pod(..) => vec![],
        };
        let named = named.iter().map(|key| sets.acquire(key, known)).collect();
        self.ids.insert(content.clone(), self.last);
        self.all.insert(self.last, Chain { content, uses: 1, sets: named });
        self.fresh.insert(self.last);
        self.last
    }

    /// Gives back one use of a chain, and of its parts when it was the last one.
    pub fn release(&mut self, id: Id, sets: &mut Sets) {
        let Some(chain) = self.all.get_mut(&id) else { return };
        chain.uses = chain.uses.saturating_sub(1);
        if chain.uses > 0 {
            return;
        }
        let Some(chain) = self.all.remove(&id) else { return };
        self.ids.remove(&chain.content);
        if !self.fresh.remove(&id) {
            self.dead.insert(id);
        }
        chain.sets.into_iter().for_each(|set| sets.release(set));
        if let Content::Pod(_, parts) = chain.content {
            parts.into_iter().for_each(|part| self.release(part, sets));
        }
    }

    /// Numbers in the order in which chains must be made: a chain is older than those that jump to it.
    pub fn ids(&self) -> impl Iterator<Item = Id> {
        self.all.keys().copied()
    }

    /// The rules of a chain for one direction of the packets.
    pub fn rules(&self, id: Id, packets: Packets) -> Vec<String> {
        let Some(chain) = self.all.get(&id) else { return vec![] };
        let mut sets = chain.sets.iter().copied();
        match &chain.content {
            Content::Policy(direction, matches) => {
                matches.iter().map(|one| rule(one, *direction, packets, &mut sets)).collect()
            }
            Content::Pod(_, parts) => {
                let jumps = parts.iter().map(|part| format!("jump {}", name(*part, packets)));
                jumps.chain(["goto deny".to_owned()]).collect()
            }
        }
    }
}

/// The packets of a connection that a rule looks at. Both ways are judged by the same conditions, so that a connection
/// ends the moment its policy goes, whoever sends next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packets {
    Original,
    Reply,
}

impl Packets {
    pub const BOTH: [Self; 2] = [Self::Original, Self::Reply];

    /// Where a packet has the address of who made the connection, of whom it goes to, and the port connected to.
    fn fields(self) -> [&'static str; 3] {
        match self {
            Self::Original => ["ip saddr", "ip daddr", "th dport"],
            Self::Reply => ["ip daddr", "ip saddr", "th sport"],
        }
    }

    pub fn suffix(self) -> &'static str {
        match self {
            Self::Original => "",
            Self::Reply => "_r",
        }
    }
}

/// A chain's name in the table.
pub fn name(id: Id, packets: Packets) -> String {
    format!("c{id}{}", packets.suffix())
}

fn rule(one: &Match, direction: Direction, packets: Packets, sets: &mut impl Iterator<Item = Id>) -> String {
    let [source, destination, port] = packets.fields();
    let peer = if direction == Direction::Ingress { source } else { destination };
    let mut words = vec![];
    let ip = std::net::Ipv4Addr::from;
    match &one.peer {
        PeerMatch::Any => {}
        PeerMatch::Blocks(ranges) if ranges.len() == 1 => {
            let (first, last) = ranges[0];
            words.push(if first == last {
                format!("{peer} {}", ip(first))
            } else {
                format!("{peer} {}-{}", ip(first), ip(last))
            });
        }
        PeerMatch::Pods(_) | PeerMatch::Blocks(_) => words.extend(sets.next().map(|id| format!("{peer} @s{id}"))),
    }
    match &one.port {
        PortMatch::Any => {}
        PortMatch::Numbers(ports) if ports.len() == 1 => {
            let (protocol, first, last) = ports[0];
            words.push(format!("meta l4proto {}", protocol.as_str()));
            match (first, last) {
                (0, u16::MAX) => {}
                _ if first == last => words.push(format!("{port} {first}")),
                _ => words.push(format!("{port} {first}-{last}")),
            }
        }
        PortMatch::Numbers(_) => words.extend(sets.next().map(|id| format!("meta l4proto . {port} @s{id}"))),
        PortMatch::Named(..) => {
            words.extend(sets.next().map(|id| format!("{destination} . meta l4proto . {port} @s{id}")));
        }
    }
    // Who may leave must still be let in.
    words.push(match direction {
        Direction::Egress => format!("goto to_ingress{}", packets.suffix()),
        Direction::Ingress => "accept".to_owned(),
    });
    words.join(" ")
}

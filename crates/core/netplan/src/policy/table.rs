//! The text of the policy tables for `nft -f`: their fixed part, sets and chains, members and places.
//!
//! A packet that concerns no guarded pod meets two map lookups. One that does meets the rules of the policies that select
//! its pods, and no others. Packets of both ways of a connection are judged, each time: there is no shortcut for
//! established connections, and so nothing to forget when a policy changes.

use super::chains::Packets;
use super::compile::SetKey;
use super::sets::{Id, Member};
use super::state::{Map, PolicyConfig};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;

impl Map {
    fn name(self, packets: Packets) -> String {
        let name = match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
            Self::Itself => "itself",
        };
        format!("{name}{}", packets.suffix())
    }
}

/// Removes both tables, also when there are none.
pub fn removal(config: &PolicyConfig) -> String {
    let table = &config.table;
    format!("add table ip {table}\ndelete table ip {table}\nadd table ip6 {table}\ndelete table ip6 {table}\n")
}

/// The fixed part. Traffic of the node itself passes `output` and `input`, which only ask about the node's DNS server.
pub fn base(config: &PolicyConfig) -> String {
    let PolicyConfig { table, bridge, .. } = config;
    // A server on another port cannot be told from other ports of the node.
    let dns = config.dns.filter(|listener| listener.port() == 53).map_or(String::new(), |listener| {
        format!("meta l4proto {{ tcp, udp }} ip daddr {} th dport 53 ip saddr vmap @egress;", listener.ip())
    });
    // Pods have no IPv6 network, but link-local addresses by which they would meet on the bridge.
    format!(
        "table ip6 {table} {{
  chain forward {{ type filter hook forward priority filter; policy accept; iifname \"{bridge}\" oifname \"{bridge}\" drop; }}
}}
table ip {table} {{
  map egress {{ type ipv4_addr : verdict; }}
  map egress_r {{ type ipv4_addr : verdict; }}
  map ingress {{ type ipv4_addr : verdict; }}
  map ingress_r {{ type ipv4_addr : verdict; }}
  set itself {{ type ipv4_addr . ipv4_addr; }}
  chain deny {{
    ip saddr . ip daddr @itself accept
    ct state established meta l4proto tcp reject with tcp reset
    drop
  }}
  chain to_ingress {{ ip daddr vmap @ingress; accept; }}
  chain to_ingress_r {{ ip saddr vmap @ingress_r; accept; }}
  chain reply {{ ip daddr vmap @egress_r; goto to_ingress_r; }}
  chain forward {{
    type filter hook forward priority -5; policy accept;
    ct state related accept
    ct direction reply goto reply
    ip saddr vmap @egress
    goto to_ingress
  }}
  chain input {{ type filter hook input priority -5; policy accept; {dns} }}
}}
"
    )
}

fn elements(all: impl IntoIterator<Item = String>) -> String {
    let all: Vec<String> = all.into_iter().collect();
    if all.is_empty() { String::new() } else { format!("elements = {{ {} }};", all.join(", ")) }
}

fn set(key: &SetKey, members: &[Member]) -> String {
    let followed = || elements(members.iter().map(ToString::to_string));
    match key {
        SetKey::Pods(_) => format!("type ipv4_addr; {}", followed()),
        SetKey::NamedPort(..) => format!("type ipv4_addr . inet_proto . inet_service; {}", followed()),
        SetKey::Blocks(ranges) => {
            let range = |(first, last): &(u32, u32)| {
                let (first, last) = (Ipv4Addr::from(*first), Ipv4Addr::from(*last));
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            };
            format!("type ipv4_addr; flags interval; {}", elements(ranges.iter().map(range)))
        }
        SetKey::Ports(ports) => {
            let range = |(protocol, first, last): &(crate::view::Protocol, u16, u16)| {
                let protocol = protocol.as_str();
                if first == last { format!("{protocol} . {first}") } else { format!("{protocol} . {first}-{last}") }
            };
            format!("type inet_proto . inet_service; flags interval; {}", elements(ports.iter().map(range)))
        }
    }
}

/// New sets with their members, and new chains with their rules.
pub fn definitions(
    config: &PolicyConfig,
    sets: &[(Id, &SetKey, Vec<Member>)],
    chains: &[(String, Vec<String>)],
) -> String {
    let mut text = String::new();
    if sets.is_empty() && chains.is_empty() {
        return text;
    }
    let _ = writeln!(text, "table ip {} {{", config.table);
    for (id, key, members) in sets {
        let _ = writeln!(text, "  set s{id} {{ {} }}", set(key, members));
    }
    for (name, rules) in chains {
        let _ = writeln!(text, "  chain {name} {{ {}; }}", rules.join("; "));
    }
    text.push_str("}\n");
    text
}

/// Members that come or go, one command per set.
pub fn members(config: &PolicyConfig, verb: &str, members: impl Iterator<Item = (Id, Member)>) -> String {
    commands(config, verb, members.map(|(id, member)| (format!("s{id}"), member.to_string())))
}

/// Places of guarded pods that come or go, one command per map.
pub fn places(
    config: &PolicyConfig,
    verb: &str,
    places: impl Iterator<Item = ((Map, Ipv4Addr), Option<Id>)> + Clone,
) -> String {
    let mut text = String::new();
    for packets in Packets::BOTH {
        let of = places.clone().filter(|((map, _), _)| *map != Map::Itself || packets == Packets::Original);
        let lines = of.map(|((map, ip), chain)| {
            let element = match chain {
                Some(id) if verb == "add" => format!("{ip} : goto {}", super::chains::name(id, packets)),
                None => format!("{ip} . {ip}"),
                Some(_) => ip.to_string(),
            };
            (map.name(packets), element)
        });
        text += &commands(config, verb, lines);
    }
    text
}

fn commands(config: &PolicyConfig, verb: &str, elements: impl Iterator<Item = (String, String)>) -> String {
    let mut text = String::new();
    let mut open: Option<String> = None;
    for (set, element) in elements {
        if open.as_ref() == Some(&set) {
            text.push_str(", ");
        } else {
            if open.is_some() {
                text.push_str(" }\n");
            }
            let _ = write!(text, "{verb} element ip {} {set} {{ ", config.table);
            open = Some(set);
        }
        text.push_str(&element);
    }
    if open.is_some() {
        text.push_str(" }\n");
    }
    text
}

/// What nothing refers to any more: rules first, then chains, then sets.
pub fn gone(config: &PolicyConfig, chains: &BTreeSet<Id>, sets: &BTreeSet<Id>) -> String {
    let names: Vec<String> =
        chains.iter().flat_map(|id| Packets::BOTH.map(|packets| super::chains::name(*id, packets))).collect();
    let mut text = String::new();
    for verb in ["flush", "delete"] {
        for name in &names {
            let _ = writeln!(text, "{verb} chain ip {} {name}", config.table);
        }
    }
    for id in sets {
        let _ = writeln!(text, "delete set ip {} s{id}", config.table);
    }
    text
}

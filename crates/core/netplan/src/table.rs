//! The fixed part of the nftables table and the balancing chains, as text for `nft -f`.
//!
//! Everything that grows with the number of services lives in named maps, never in rules or anonymous sets: loading is
//! linear and one change does not make `nft` read the table back. A balancing chain exists per endpoint *count*: it
//! draws a slot into the connection mark, and the map of endpoints is keyed by frontend and slot.

use crate::proxy::ProxyConfig;
use std::fmt::{self, Write};

/// Packet mark of traffic to be masqueraded (CNI's portmap plugin uses 0x2000).
pub const MASQUERADE_MARK: u32 = 0x4000;
/// Most clients with affinity remembered at once; beyond it new ones are balanced without memory.
pub const AFFINITY_ENTRIES_MAX: u32 = 65_536;
/// Balancing chains made in advance; larger counts are added when first needed.
const CHAINS_IN_ADVANCE: u32 = 8;

/// A chain that a map element may send a packet to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chain {
    /// Answers with a TCP reset or ICMP port unreachable.
    Reject,
    /// Sends to this node's DNS server.
    Dns,
    Balance(Balance),
}

/// A balancing chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Balance {
    /// Uses the maps of node-local endpoints and keeps the client's address.
    pub local: bool,
    /// Looks endpoints up by node port instead of virtual IP.
    pub node_port: bool,
    pub slots: u32,
    /// Seconds of client affinity.
    pub sticky: Option<u32>,
}

impl Balance {
    fn family(&self) -> &'static str {
        match (self.local, self.node_port) {
            (false, false) => "lb",
            (false, true) => "np",
            (true, false) => "lbl",
            (true, true) => "npl",
        }
    }

    fn write_rules(&self, out: &mut String) -> fmt::Result {
        let family = self.family();
        let draw = match self.slots {
            0 | 1 => "0".to_owned(),
            slots => format!("numgen random mod {slots}"),
        };
        match self.sticky {
            None => writeln!(out, "  chain {} {{ ct mark set {draw}; goto {family}_go; }}", Chain::Balance(*self)),
            // A remembered slot that no longer exists falls through to a new draw: `jump` comes back when nothing matched.
            Some(seconds) => writeln!(
                out,
                "  chain {family}_go_s{seconds} {{ update @affinity {{ {AFFINITY_KEY} timeout {seconds}s : ct mark }}; goto {family}_go; }}\n  \
                   chain {} {{ ct mark set {AFFINITY_KEY} map @affinity jump {family}_go_s{seconds}; ct mark set {draw}; goto {family}_go_s{seconds}; }}",
                Chain::Balance(*self)
            ),
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reject => f.write_str("reject_it"),
            Self::Dns => f.write_str("to_dns"),
            Self::Balance(balance) => {
                write!(f, "{}_{}", balance.family(), balance.slots)?;
                balance.sticky.map_or(Ok(()), |seconds| write!(f, "_s{seconds}"))
            }
        }
    }
}

const AFFINITY_KEY: &str = "ip saddr . ip daddr . meta l4proto . th dport";
const FRONTEND: &str = "ip daddr . meta l4proto . th dport";
const PORT: &str = "meta l4proto . th dport";

/// The chains that exist from the start.
pub fn chains_in_advance() -> impl Iterator<Item = Balance> {
    let counts = |(local, node_port)| {
        (1..=CHAINS_IN_ADVANCE).map(move |slots| Balance { local, node_port, slots, sticky: None })
    };
    [(false, false), (false, true), (true, false), (true, true)].into_iter().flat_map(counts)
}

/// Text that adds `chain`. Sticky chains share one helper per timeout, which is flushed first so that it holds its rules once.
pub fn write_chain(out: &mut String, table: &str, chain: &Balance) -> fmt::Result {
    if let Some(seconds) = chain.sticky {
        let go = format!("{}_go_s{seconds}", chain.family());
        writeln!(out, "add chain ip {table} {go}\nflush chain ip {table} {go}")?;
    }
    writeln!(out, "table ip {table} {{")?;
    chain.write_rules(out)?;
    out.push_str("}\n");
    Ok(())
}

fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { String::new() } else { format!("elements = {{ {} }};", items.join(", ")) }
}

/// Text that replaces the table with an empty one of the current design; part of one transaction with its elements.
pub fn write_base(out: &mut String, config: &ProxyConfig) -> fmt::Result {
    let table = &config.table;
    let cidrs = |all: &[(std::net::Ipv4Addr, u8)]| list(all.iter().map(|(ip, length)| format!("{ip}/{length}")));
    let (mark, entries) = (format!("{MASQUERADE_MARK:#x}"), AFFINITY_ENTRIES_MAX);
    let dns = config
        .dns
        .map(|dns| format!("meta l4proto {{ tcp, udp }} dnat ip to {}:{};", dns.listener.ip(), dns.listener.port()))
        .unwrap_or_default();
    writeln!(
        out,
        "add table ip {table}
delete table ip {table}
table ip {table} {{
  map service_ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map local_ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map nodeports {{ type inet_proto . inet_service : verdict; }}
  map local_nodeports {{ type inet_proto . inet_service : verdict; }}
  map no_endpoints {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map no_endpoints_np {{ type inet_proto . inet_service : verdict; }}
  map eps {{ type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; }}
  map local_eps {{ type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; }}
  map np_eps {{ type inet_proto . inet_service . mark : ipv4_addr . inet_service; }}
  map local_np_eps {{ type inet_proto . inet_service . mark : ipv4_addr . inet_service; }}
  map affinity {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service : mark; flags dynamic,timeout; timeout 3h; size {entries}; }}
  set hairpin {{ type ipv4_addr . ipv4_addr; }}
  set cluster_ips {{ type ipv4_addr; }}
  set firewall {{ type ipv4_addr . inet_proto . inet_service; }}
  set firewall_sources {{ type ipv4_addr . inet_proto . inet_service . ipv4_addr; flags interval; }}
  set nodeport_ips {{ type ipv4_addr; {node_ips} }}
  set pod_cidrs {{ type ipv4_addr; flags interval; auto-merge; {pod_cidrs} }}
  set own_pods {{ type ipv4_addr; flags interval; auto-merge; {own_pods} }}
  set service_cidrs {{ type ipv4_addr; flags interval; auto-merge; {service_cidrs} }}
  chain mark_masq {{ meta mark set meta mark or {mark}; }}
  chain lb_go {{ ip saddr != @pod_cidrs jump mark_masq; dnat ip to {FRONTEND} . ct mark map @eps; }}
  chain lbl_go {{ dnat ip to {FRONTEND} . ct mark map @local_eps; }}
  chain np_go {{ jump mark_masq; dnat ip to {PORT} . ct mark map @np_eps; }}
  chain npl_go {{ dnat ip to {PORT} . ct mark map @local_np_eps; }}
  chain to_dns {{ {dns} }}
  chain reject_it {{ meta l4proto tcp reject with tcp reset; reject; }}
  chain services {{
    {FRONTEND} vmap @service_ips
    ip daddr @nodeport_ips {PORT} vmap @nodeports
  }}
  chain from_outside {{
    {FRONTEND} vmap @local_ips
    ip daddr @nodeport_ips {PORT} vmap @local_nodeports
  }}
  chain refuse {{
    {FRONTEND} vmap @no_endpoints
    ip daddr @cluster_ips goto reject_it
    ip daddr @service_cidrs drop
  }}
  chain admit {{ {FRONTEND} @firewall {FRONTEND} . ip saddr != @firewall_sources drop; }}
  chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; ip saddr != @pod_cidrs jump from_outside; jump services; }}
  chain output {{ type nat hook output priority -100; policy accept; jump services; }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta mark and {mark} == {mark} meta mark set meta mark xor {mark} masquerade fully-random
    ct status dnat ip saddr . ip daddr @hairpin masquerade fully-random
    ip saddr @own_pods ip daddr != @pod_cidrs ip daddr != 224.0.0.0/4 masquerade fully-random
  }}
  chain f_prerouting {{ type filter hook prerouting priority -110; policy accept; ct state new jump admit; }}
  chain f_before_output {{ type filter hook output priority -110; policy accept; ct state new jump admit; }}
  chain f_forward {{ type filter hook forward priority filter; policy accept; ct state new jump refuse; }}
  chain f_output {{ type filter hook output priority filter; policy accept; ct state new jump refuse; }}
  chain f_input {{
    type filter hook input priority filter; policy accept;
    ct state new jump refuse
    ct state new ip daddr @nodeport_ips {PORT} vmap @no_endpoints_np
  }}",
        node_ips = list(&config.node_ips),
        pod_cidrs = cidrs(&config.pod_cidrs),
        own_pods = cidrs(&config.own_pod_cidrs),
        service_cidrs = cidrs(&config.service_cidrs),
    )?;
    chains_in_advance().try_for_each(|chain| chain.write_rules(out))?;
    out.push_str("}\n");
    Ok(())
}

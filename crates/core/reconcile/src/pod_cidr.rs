//! Pod CIDRs of nodes: each gets a free range of every cluster CIDR, once, without overlap.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::ownership::reference;
use crate::plan::{NODES, Note, Op, Plan, Step};

/// A cluster CIDR that nodes get their ranges from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterCidr {
    base: u128,
    prefix: u32,
    node_prefix: u32,
    bits: u32,
}

impl ClusterCidr {
    /// Parses `10.42.0.0/16`; nodes get ranges of `node_prefix`.
    ///
    /// # Errors
    /// Says what is wrong with the text or with the two prefix lengths.
    pub fn parse(text: &str, node_prefix: u8) -> Result<Self, String> {
        let (address, prefix) = split(text).ok_or_else(|| format!("{text:?} is not a CIDR like 10.42.0.0/16"))?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let node_prefix = u32::from(node_prefix);
        if prefix > node_prefix || node_prefix > bits || node_prefix - prefix > 16 {
            return Err(format!("a node prefix of /{node_prefix} does not fit into the cluster CIDR {text}"));
        }
        let base = number(address) >> (bits - prefix).min(127) << (bits - prefix).min(127);
        Ok(Self { base, prefix, node_prefix, bits })
    }

    fn range(&self, index: u128) -> String {
        let number = self.base + (index << (self.bits - self.node_prefix));
        let address: IpAddr = match u32::try_from(number) {
            Ok(number) if self.bits == 32 => std::net::Ipv4Addr::from(number).into(),
            _ => std::net::Ipv6Addr::from(number).into(),
        };
        format!("{address}/{}", self.node_prefix)
    }

    /// The indexes a range covers here; foreign ranges cover none.
    fn indexes(&self, cidr: &str) -> std::ops::Range<u128> {
        let Some((address, prefix)) = split(cidr) else { return 0..0 };
        let same_family = address.is_ipv4() == (self.bits == 32);
        let size = self.bits - self.node_prefix;
        let end = self.base + (1 << (self.bits - self.prefix));
        let first = number(address);
        if !same_family || first < self.base || first >= end {
            return 0..0;
        }
        let covered = 1u128 << (self.node_prefix.saturating_sub(prefix)).min(16);
        let index = (first - self.base) >> size;
        index..index + covered
    }
}

fn split(text: &str) -> Option<(IpAddr, u32)> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix): (IpAddr, u32) = (address.parse().ok()?, prefix.parse().ok()?);
    (prefix >= 1 && prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, prefix))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// Ranges for all nodes that have none, seen together with those given out already.
pub fn plan(cidrs: &[ClusterCidr], nodes: &[Arc<Node>]) -> Plan {
    let mut plan = Plan::default();
    let ranges = |node: &Node| -> Vec<String> {
        let spec = node.spec.clone().unwrap_or_default();
        let mut ranges = spec.pod_cidrs.unwrap_or_default();
        if let Some(range) = spec.pod_cidr.filter(|range| !ranges.contains(range)) {
            ranges.push(range);
        }
        ranges
    };
    let mut used: Vec<HashSet<u128>> = cidrs
        .iter()
        .map(|cidr| nodes.iter().flat_map(|node| ranges(node)).flat_map(|range| cidr.indexes(&range)).collect())
        .collect();
    let mut waiting: Vec<&Arc<Node>> = nodes.iter().filter(|node| ranges(node).is_empty()).collect();
    waiting.retain(|node| node.metadata.deletion_timestamp.is_none());
    waiting.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    if cidrs.is_empty() {
        return plan;
    }
    for node in waiting {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let free: Option<Vec<u128>> = cidrs
            .iter()
            .zip(&used)
            .map(|(cidr, used)| (0..1u128 << (cidr.node_prefix - cidr.prefix)).find(|index| !used.contains(index)))
            .collect();
        let Some(free) = free else {
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            plan.notes.push(Note::normal(&reference(NODES, &node.metadata), "CIDRNotAvailable", message));
            continue;
        };
        let ranges: Vec<String> = cidrs.iter().zip(&free).map(|(cidr, index)| cidr.range(*index)).collect();
        for (used, index) in used.iter_mut().zip(free) {
            used.insert(index);
        }
        let body = json!({ "metadata": { "uid": node.metadata.uid },
            "spec": { "podCIDR": ranges.first(), "podCIDRs": ranges } });
        plan.batch.push(Step::from(Op::merge(NODES, "", name, body)));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cidr: Option<&str>) -> Arc<Node> {
        let spec = json!({ "podCIDR": cidr, "podCIDRs": cidr.map(|cidr| vec![cidr]) });
        Arc::new(serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).unwrap())
    }

    fn given(cidr: &str, mask: u8, nodes: &[Arc<Node>]) -> Vec<String> {
        let cidrs = [ClusterCidr::parse(cidr, mask).unwrap()];
        let range = |step: &Step| match &step.op {
            Op::Patch { name, body, .. } => format!("{name} {}", body["spec"]["podCIDR"].as_str().unwrap()),
            other => panic!("{other:?}"),
        };
        plan(&cidrs, nodes).batch.iter().map(range).collect()
    }

    #[test]
    fn gaps_are_filled_and_overlaps_avoided() {
        let nodes =
            [node("b", None), node("a", Some("10.42.0.0/24")), node("c", None), node("d", Some("10.42.2.0/23"))];
        assert_eq!(given("10.42.0.0/16", 24, &nodes), ["b 10.42.1.0/24", "c 10.42.4.0/24"]);
        assert_eq!(given("10.42.0.0/24", 24, &nodes), Vec::<String>::new());
        assert_eq!(given("fd00::/48", 64, &[node("x", None)]), ["x fd00::/64"]);
        assert!(ClusterCidr::parse("10.0.0.0/28", 24).is_err());
        assert!(ClusterCidr::parse("nonsense", 24).is_err());
    }
}

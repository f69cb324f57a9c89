//! Hints that give each zone its share of a Service's endpoints, by processors (`service.kubernetes.io/topology-mode: Auto`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, ForZone};

/// Both names of the annotation; the second is the older one.
const MODES: [&str; 2] = ["service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"];
pub const ZONE: &str = "topology.kubernetes.io/zone";
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// A zone may get so much more traffic per endpoint than an even spread would give it.
const OVERLOAD_MAX: f64 = 0.2;

/// Whether the Service asks for it. Such a Service's `trafficDistribution` is not looked at.
pub fn is_wanted(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    let mode = MODES.into_iter().find_map(|name| annotations?.get(name));
    mode.is_some_and(|mode| matches!(mode.as_str(), "Auto" | "auto"))
}

/// Processors that work in each zone, in thousandths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones(BTreeMap<String, i64>);

impl Zones {
    /// `None` where shares cannot be told: there are fewer than two zones, or a node that works does not say where it is
    /// or what it has.
    pub fn of<'a>(nodes: impl Iterator<Item = &'a Node>) -> Option<Self> {
        let mut zones = BTreeMap::new();
        for node in nodes.filter(|node| works(node)) {
            let (zone, processors) = facts(Some(node));
            *zones.entry(zone?.to_owned()).or_insert(0) +=
                processors?.parse::<meta::quantity::Quantity>().ok()?.milli_value().max(1);
        }
        (zones.len() > 1).then_some(Self(zones))
    }

    /// How many of `count` endpoints each zone ought to have.
    fn shares(&self, count: usize) -> BTreeMap<&str, f64> {
        let all: i64 = self.0.values().sum();
        self.0.iter().map(|(zone, own)| (zone.as_str(), *own as f64 / all as f64 * count as f64)).collect()
    }
}

/// What a node adds to its zone, to be compared: nothing while it does not work.
pub fn facts(node: Option<&Node>) -> (Option<&str>, Option<&str>) {
    let Some(node) = node.filter(|node| works(node)) else { return (None, None) };
    let zone = node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE));
    let processors = node.status.as_ref().and_then(|status| status.allocatable.as_ref()?.get("cpu"));
    (zone.map(String::as_str), processors.map(|quantity| quantity.0.as_str()))
}

fn works(node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let controls = CONTROL_PLANE.into_iter().any(|label| labels.is_some_and(|labels| labels.contains_key(label)));
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    !controls && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Writes the hints into the ready endpoints of one address family; none where there are too few for every zone, or one
/// that is in no zone. Endpoints stay with their own zone as far as its share allows.
pub fn hint(endpoints: &mut [&mut Endpoint], zones: &Zones) {
    let here: Option<Vec<&str>> = endpoints.iter().map(|endpoint| endpoint.zone.as_deref()).collect();
    let Some(allotted) = here.and_then(|here| allot(&here, zones)) else { return };
    let allotted: Vec<String> = allotted.into_iter().map(str::to_owned).collect();
    for (endpoint, name) in endpoints.iter_mut().zip(allotted) {
        endpoint.hints = Some(EndpointHints { for_zones: Some(vec![ForZone { name }]), for_nodes: None });
    }
}

/// The zone that each endpoint, given by the zone it is in, serves.
fn allot<'a>(here: &[&'a str], zones: &'a Zones) -> Option<Vec<&'a str>> {
    let shares = zones.shares(here.len());
    let least: BTreeMap<&str, f64> =
        shares.iter().map(|(zone, share)| (*zone, (share / (1.0 + OVERLOAD_MAX)).ceil())).collect();
    let known = here.iter().all(|zone| shares.contains_key(zone));
    if here.len() < shares.len() || !known || least.values().sum::<f64>() > here.len() as f64 {
        return None;
    }
    let mut allotted = here.to_vec();
    let missing = |allotted: &[&str], wanted: f64, zone: &str| {
        wanted - allotted.iter().filter(|serves| **serves == zone).count() as f64
    };
    // Each round moves one endpoint from the zone with the most to spare to the one that lacks the most.
    for _ in 0..allotted.len() {
        let lacks = |zone: &&str| missing(&allotted, shares[zone], zone);
        let by_lack = |a: &&str, b: &&str| lacks(a).total_cmp(&lacks(b));
        let (to, from) = (*shares.keys().max_by(|a, b| by_lack(a, b))?, *shares.keys().min_by(|a, b| by_lack(a, b))?);
        let needs = missing(&allotted, least[to], to) > 0.0 || (lacks(&to) >= 1.0 && lacks(&from) <= -1.0);
        let last = allotted.iter().rposition(|serves| *serves == from)?;
        if !needs || from == to {
            break;
        }
        allotted[last] = to;
    }
    Some(allotted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_get_their_shares() {
        let rows = [
            ("a:1 b:1 c:1", "a b c", "a b c"),
            ("a:1 b:1 c:1", "a b", "-"),
            ("a:1 b:1 c:1", "a a a", "a b c"),
            ("a:1 b:1", "a a a a b b", "a a a b b b"),
            ("a:1 b:1", "a a a b b", "-"),
            ("a:3 b:1", "a a b b", "a a b a"),
            ("a:1 b:1", "a b x", "-"),
            ("a:9 b:1", "a a", "-"),
        ];
        for (zones, here, expected) in rows {
            let zones = zones.split(' ').map(|zone| zone.split_once(':').unwrap());
            let zones = Zones(zones.map(|(name, cpus)| (name.to_owned(), cpus.parse().unwrap())).collect());
            let here: Vec<&str> = here.split(' ').collect();
            let shown = allot(&here, &zones).map_or("-".to_owned(), |zones| zones.join(" "));
            assert_eq!(shown, expected, "{here:?} of {zones:?}");
        }
    }

    #[test]
    fn zones_are_those_of_working_nodes_that_say_what_they_have() {
        let node = |zone: &str, cpu: &str, ready: &str, role: &str| -> Node {
            let mut labels = serde_json::json!({ ZONE: zone });
            if !role.is_empty() {
                labels[role] = "".into();
            }
            serde_json::from_value(serde_json::json!({"metadata": {"labels": labels}, "status": {
                "allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap()
        };
        let zones = |nodes: &[Node]| Zones::of(nodes.iter()).map(|zones| zones.0.into_iter().collect::<Vec<_>>());
        let (a, b) = (node("a", "2", "True", ""), node("b", "500m", "True", ""));
        let two = Some(vec![("a".to_owned(), 2000), ("b".to_owned(), 500)]);
        assert_eq!(zones(&[a.clone(), b.clone()]), two);
        let (down, control) = (node("c", "1", "Unknown", ""), node("d", "1", "True", CONTROL_PLANE[0]));
        assert_eq!(zones(&[a.clone(), b.clone(), down, control]), two);
        assert_eq!(zones(&[a.clone(), a.clone()]), None, "one zone");
        assert_eq!(zones(&[a.clone(), b, Node::default()]), two, "a node that is not ready yet");
        let mut lost = a.clone();
        lost.metadata.labels = None;
        assert_eq!(zones(&[a, lost]), None, "a node in no zone");
    }
}

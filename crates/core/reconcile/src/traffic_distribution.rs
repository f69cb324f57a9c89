//! Hints in a Service's slices for whom each endpoint is meant, where its `trafficDistribution` asks for near ones.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, ForNode, ForZone};

/// How near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    Zone,
    Node,
}

/// What the Service prefers; a word that is not known prefers nothing.
pub fn preference(service: &Service) -> Option<Preference> {
    match service.spec.as_ref()?.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => Some(Preference::Zone),
        "PreferSameNode" => Some(Preference::Node),
        _ => None,
    }
}

/// Whether an endpoint gets traffic; one that does not say so does.
pub fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
}

/// The hints of one endpoint: only ready ones are for anybody. Who prefers its node falls back to its zone.
pub fn hints(preference: Option<Preference>, endpoint: &Endpoint) -> Option<EndpointHints> {
    let preference = preference?;
    if !is_ready(endpoint) {
        return None;
    }
    let for_zones = endpoint.zone.as_ref().map(|zone| vec![ForZone { name: zone.clone() }]);
    let node = endpoint.node_name.as_ref().filter(|_| preference == Preference::Node);
    let for_nodes = node.map(|node| vec![ForNode { name: node.clone() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

//! The small views of NetworkPolicy, Pod and Namespace that the planner keeps instead of whole objects.

use crate::routes::Cidr;
use crate::view::{Protocol, parse_cidr};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meta::labels::Selector;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Labels of a pod or a namespace.
pub type Labels = BTreeMap<String, String>;

/// A pod of the pod network: pods that share their node's network and pods that ended have no view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodView {
    pub labels: Arc<Labels>,
    /// `status.podIPs` of this family; empty until the kubelet has told them.
    pub ips: Vec<Ipv4Addr>,
    pub node: String,
    /// Named container ports.
    pub ports: Vec<(String, Protocol, u16)>,
}

impl PodView {
    /// `None` for a pod that no policy can concern: not bound yet, on its node's network, or ended.
    pub fn from_object(pod: &Pod) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref());
        let ended =
            status.and_then(|s| s.phase.as_deref()).is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
        if ended || spec.host_network == Some(true) {
            return None;
        }
        // A sidecar is an init container that stays.
        let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
        let named = ports.filter_map(|port| {
            let number = u16::try_from(port.container_port).ok()?;
            Some((port.name.clone()?, Protocol::parse(port.protocol.as_deref())?, number))
        });
        let mut ips = vec![];
        let listed = status.and_then(|s| s.pod_ips.as_ref()).into_iter().flatten().map(|ip| &ip.ip);
        for ip in listed.chain(status.and_then(|s| s.pod_ip.as_ref())).filter_map(|ip| ip.parse().ok()) {
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        Some(Self {
            labels: Arc::new(pod.metadata.labels.clone().unwrap_or_default()),
            ips,
            node: spec.node_name.clone()?,
            ports: named.collect(),
        })
    }
}

/// Which way a policy looks at a connection: at who comes to its pods, or at whom they go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    Egress,
    Ingress,
}

/// A NetworkPolicy. A direction that is `None` is not restricted; one without rules is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyView {
    pub pods: Selector,
    pub egress: Option<Vec<Rule>>,
    pub ingress: Option<Vec<Rule>>,
}

/// One rule: some peer and some port must match. `None` admits every peer or port; an empty list none, which is what
/// remains of a list whose members are all of another address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub peers: Option<Vec<Peer>>,
    pub ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Pods of the policy's own namespace, or of those that `namespaces` selects.
    Pods {
        namespaces: Option<Selector>,
        pods: Selector,
    },
    Block {
        cidr: Cidr,
        except: Vec<Cidr>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub protocol: Protocol,
    pub number: PortNumber,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortNumber {
    /// First and last; all of them where the policy names none.
    Range(u16, u16),
    /// A container port's name, looked up at the pod that is connected to.
    Named(String),
}

impl PolicyView {
    /// `None` for a policy whose pod selector cannot be read, which the API does not store.
    pub fn from_object(policy: &NetworkPolicy) -> Option<Self> {
        let spec = policy.spec.as_ref()?;
        let types = spec.policy_types.as_deref().unwrap_or_default();
        let names = |name: &str| types.iter().any(|known| known == name);
        // Without types a policy is about ingress, and about egress where it has rules for it.
        let is_ingress = types.is_empty() || names("Ingress");
        let is_egress =
            names("Egress") || (types.is_empty() && spec.egress.as_ref().is_some_and(|all| !all.is_empty()));
        let ingress = spec.ingress.iter().flatten().map(|rule| Rule::new(rule.from.as_deref(), rule.ports.as_deref()));
        let egress = spec.egress.iter().flatten().map(|rule| Rule::new(rule.to.as_deref(), rule.ports.as_deref()));
        Some(Self {
            pods: spec.pod_selector.as_ref().map_or_else(|| Some(Selector::default()), selector)?,
            egress: is_egress.then(|| egress.collect()),
            ingress: is_ingress.then(|| ingress.collect()),
        })
    }

    /// The rules of one direction.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Egress => self.egress.as_deref(),
            Direction::Ingress => self.ingress.as_deref(),
        }
    }
}

impl Rule {
    fn new(peers: Option<&[NetworkPolicyPeer]>, ports: Option<&[NetworkPolicyPort]>) -> Self {
        let peers = peers.filter(|all| !all.is_empty());
        let ports = ports.filter(|all| !all.is_empty());
        Self {
            peers: peers.map(|all| all.iter().filter_map(peer).collect()),
            ports: ports.map(|all| all.iter().filter_map(port).collect()),
        }
    }
}

fn selector(selector: &LabelSelector) -> Option<Selector> {
    Selector::from_label_selector(&serde_json::to_value(selector).ok()?)
}

fn peer(peer: &NetworkPolicyPeer) -> Option<Peer> {
    if let Some(block) = &peer.ip_block {
        let except = block.except.iter().flatten().filter_map(|cidr| parse_cidr(cidr)).collect();
        return Some(Peer::Block { cidr: parse_cidr(&block.cidr)?, except });
    }
    let pods = peer.pod_selector.as_ref().map_or_else(|| Some(Selector::default()), selector)?;
    match &peer.namespace_selector {
        Some(namespaces) => Some(Peer::Pods { namespaces: Some(selector(namespaces)?), pods }),
        None => peer.pod_selector.is_some().then_some(Peer::Pods { namespaces: None, pods }),
    }
}

fn port(port: &NetworkPolicyPort) -> Option<Port> {
    let number = |value: i32| u16::try_from(value).ok();
    let number = match &port.port {
        None => PortNumber::Range(0, u16::MAX),
        Some(IntOrString::String(name)) => PortNumber::Named(name.clone()),
        Some(IntOrString::Int(first)) => {
            let first = number(*first)?;
            PortNumber::Range(first, port.end_port.map_or(Some(first), number)?.max(first))
        }
    };
    Some(Port { protocol: Protocol::parse(port.protocol.as_deref())?, number })
}

//! The plain reading of network policies: may this connection be made? Slow and obvious; the planner is measured by it.

use super::view::{Direction, Labels, Peer, PodView, PolicyView, PortNumber, Rule};
use crate::routes::contains;
use crate::view::{Key, Protocol};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// All objects that the question depends on.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub namespaces: BTreeMap<String, Arc<Labels>>,
    pub pods: BTreeMap<Key, PodView>,
    pub policies: BTreeMap<Key, PolicyView>,
}

/// A connection as the pods see it: services are translated already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
}

impl World {
    fn pod_at(&self, ip: Ipv4Addr) -> Option<(&Key, &PodView)> {
        self.pods.iter().find(|(_, pod)| pod.ips.contains(&ip))
    }

    /// Whether the pods at both ends admit the connection. A pod cannot close itself off from itself.
    pub fn allows(&self, connection: Connection) -> bool {
        connection.source == connection.destination
            || (self.closed_by(Direction::Egress, connection).is_none()
                && self.closed_by(Direction::Ingress, connection).is_none())
    }

    /// The policies that isolate one end of the connection, when none of them admits it; `None` when it may pass.
    pub fn closed_by(&self, direction: Direction, connection: Connection) -> Option<Vec<&Key>> {
        let (own, other) = match direction {
            Direction::Egress => (connection.source, connection.destination),
            Direction::Ingress => (connection.destination, connection.source),
        };
        let (pod_key, pod) = self.pod_at(own)?;
        let selecting = self.policies.iter().filter(|(key, policy)| {
            key.namespace == pod_key.namespace && policy.pods.matches(&*pod.labels) && policy.rules(direction).is_some()
        });
        let selecting: Vec<(&Key, &PolicyView)> = selecting.collect();
        let admitted = selecting.iter().any(|(key, policy)| {
            policy.rules(direction).into_iter().flatten().any(|rule| self.rule_admits(rule, key, other, connection))
        });
        (!selecting.is_empty() && !admitted).then(|| selecting.into_iter().map(|(key, _)| key).collect())
    }

    fn rule_admits(&self, rule: &Rule, policy: &Key, other: Ipv4Addr, connection: Connection) -> bool {
        let peer = rule.peers.as_ref().is_none_or(|peers| peers.iter().any(|peer| self.peer_is(peer, policy, other)));
        let destination = self.pod_at(connection.destination);
        let port = rule.ports.as_ref().is_none_or(|ports| {
            ports.iter().any(|port| {
                port.protocol == connection.protocol
                    && match &port.number {
                        PortNumber::Range(first, last) => (*first..=*last).contains(&connection.port),
                        PortNumber::Named(name) => destination.is_some_and(|(_, pod)| {
                            let wanted = (name, &connection.protocol, &connection.port);
                            pod.ports.iter().any(|(name, protocol, number)| (name, protocol, number) == wanted)
                        }),
                    }
            })
        });
        peer && port
    }

    fn peer_is(&self, peer: &Peer, policy: &Key, ip: Ipv4Addr) -> bool {
        match peer {
            Peer::Block { cidr, except } => contains(*cidr, ip) && !except.iter().any(|hole| contains(*hole, ip)),
            Peer::Pods { namespaces, pods } => self.pod_at(ip).is_some_and(|(key, pod)| {
                let here = match namespaces {
                    None => key.namespace == policy.namespace,
                    Some(selector) => {
                        self.namespaces.get(&key.namespace).is_some_and(|labels| selector.matches(&**labels))
                    }
                };
                here && pods.matches(&*pod.labels)
            }),
        }
    }
}

//! Which addresses a port of a Service stands for.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::Key;
use crate::table::{Backend, Unusable};
use crate::view::{EndpointView, PortRef, ServiceView, SliceView};

/// Services and slices of one snapshot, found by Service, and the backends that were asked for.
pub struct Resolver<'a> {
    services: HashMap<&'a Key, &'a ServiceView>,
    slices: HashMap<(&'a str, &'a str), Vec<&'a SliceView>>,
    /// Zone of the node that asks.
    zone: Option<&'a str>,
    known: HashMap<(Key, PortRef), Arc<Backend>>,
}

impl<'a> Resolver<'a> {
    pub fn new(
        services: impl Iterator<Item = &'a ServiceView>,
        slices: impl Iterator<Item = &'a SliceView>,
        zone: Option<&'a str>,
    ) -> Self {
        let mut by_service: HashMap<_, Vec<_>> = HashMap::new();
        for slice in slices.filter(|slice| !slice.service.is_empty()) {
            by_service.entry((slice.key.namespace.as_str(), slice.service.as_str())).or_default().push(slice);
        }
        let services = services.map(|service| (&service.key, service)).collect();
        Self { services, slices: by_service, zone, known: HashMap::new() }
    }

    /// The backend of a port; rules that name the same port share it.
    pub fn backend(&mut self, service: &Key, port: &PortRef) -> Arc<Backend> {
        let id = (service.clone(), port.clone());
        if let Some(backend) = self.known.get(&id) {
            return backend.clone();
        }
        let backend = Arc::new(self.resolve(service, port));
        self.known.insert(id, backend.clone());
        backend
    }

    /// Every backend that was asked for.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.known.values()
    }

    fn resolve(&self, key: &Key, wanted: &PortRef) -> Backend {
        let name = match wanted {
            PortRef::Name(name) => format!("{key}:{name}"),
            PortRef::Number(number) => format!("{key}:{number}"),
        };
        let unusable = |why| Backend::unusable(name.clone(), why);
        let Some(service) = self.services.get(key) else { return unusable(Unusable::NoService) };
        if service.is_external_name {
            return unusable(Unusable::ExternalName);
        }
        let port = service.ports.iter().find(|port| match wanted {
            PortRef::Name(name) => port.name == *name,
            PortRef::Number(number) => port.number == *number,
        });
        let Some(port) = port else { return unusable(Unusable::NoPort) };
        let slices = self.slices.get(&(key.namespace.as_str(), key.name.as_str())).into_iter().flatten();
        let mut found: BTreeMap<SocketAddr, &EndpointView> = BTreeMap::new();
        for slice in slices {
            for (_, number) in slice.ports.iter().filter(|(name, _)| *name == port.name) {
                for endpoint in &slice.endpoints {
                    let address = SocketAddr::new(endpoint.address, *number);
                    // The same address in two slices: a pod that moves between slices must not look gone.
                    if found.get(&address).is_none_or(|known| !known.ready) {
                        found.insert(address, endpoint);
                    }
                }
            }
        }
        Backend { name: name.into(), addresses: self.select(&found), protocol: port.protocol, unusable: None }
    }

    /// Ready endpoints, by the node's zone where all of them have hints; if there are none, those that linger.
    fn select(&self, found: &BTreeMap<SocketAddr, &EndpointView>) -> Vec<SocketAddr> {
        let ready = || found.iter().filter(|(_, endpoint)| endpoint.ready);
        if let Some(zone) = self.zone
            && ready().all(|(_, endpoint)| !endpoint.zones.is_empty())
        {
            let near = ready().filter(|(_, endpoint)| endpoint.zones.iter().any(|hint| hint == zone));
            let near: Vec<SocketAddr> = near.map(|(address, _)| *address).collect();
            if !near.is_empty() {
                return near;
            }
        }
        let all: Vec<SocketAddr> = ready().map(|(address, _)| *address).collect();
        if !all.is_empty() {
            return all;
        }
        found.iter().filter(|(_, endpoint)| endpoint.lingering).map(|(address, _)| *address).collect()
    }
}

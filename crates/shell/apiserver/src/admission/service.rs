//! Cluster IPs and node ports of Services. What is held is read from the Services themselves, so that nothing can be
//! lost or leak across a crash; what a request in flight has been promised is kept until it shows or runs out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use access::admission::service::{self, Ranges, Taken};
use async_trait::async_trait;
use imbl::ordmap::DiffItem;
use meta::{ApiResult, Status};
use rand::Rng;
use serde_json::Value;

use super::{Admission, AdmissionRequest, Operation};
use crate::cache::{Object, Objects};

/// A promise to a request that never stored its Service ends after this time; no request lasts longer.
const PROMISE_AGE_MAX: Duration = Duration::from_secs(90);
/// Promises kept at once; beyond, the oldest end early.
const PROMISES_MAX: usize = 10_000;

/// The label of the objects that a controller keeps for the addresses of Services, and its value.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";

/// Gives Services their addresses and ports.
pub struct ServiceAllocation {
    ranges: Ranges,
    held: Mutex<Held>,
}

/// What Services hold, by owner (`namespace/name`).
#[derive(Default)]
struct Held {
    seen: Objects,
    addresses: HashMap<IpAddr, Arc<str>>,
    ports: HashMap<u16, Arc<str>>,
    promised_addresses: HashMap<IpAddr, (Arc<str>, Instant)>,
    promised_ports: HashMap<u16, (Arc<str>, Instant)>,
}

impl Held {
    /// Takes over what changed since the last look.
    fn follow(&mut self, now: Objects) {
        let before = std::mem::take(&mut self.seen);
        for change in before.diff(&now) {
            match change {
                DiffItem::Add(key, object) => self.add(key, object),
                DiffItem::Remove(key, object) => self.release(key, object),
                DiffItem::Update { old, new } => {
                    self.release(old.0, old.1);
                    self.add(new.0, new.1);
                }
            }
        }
        self.seen = now;
    }

    fn add(&mut self, key: &Arc<str>, object: &Object) {
        let Ok(service) = object.value() else { return };
        self.addresses.extend(service::addresses(&service).map(|ip| (ip, key.clone())));
        self.ports.extend(service::ports(&service).map(|port| (port, key.clone())));
    }

    fn release(&mut self, key: &Arc<str>, object: &Object) {
        let Ok(service) = object.value() else { return };
        for ip in service::addresses(&service).filter(|ip| self.addresses.get(ip) == Some(key)).collect::<Vec<_>>() {
            self.addresses.remove(&ip);
        }
        for port in service::ports(&service).filter(|port| self.ports.get(port) == Some(key)).collect::<Vec<_>>() {
            self.ports.remove(&port);
        }
    }

    fn promise(&mut self, owner: &Arc<str>, service: &Value, now: Instant) {
        let entry = (owner.clone(), now);
        self.promised_addresses.extend(service::addresses(service).map(|ip| (ip, entry.clone())));
        self.promised_ports.extend(service::ports(service).map(|port| (port, entry.clone())));
    }

    fn forget(&mut self, owner: &str) {
        self.promised_addresses.retain(|_, (by, _)| &**by != owner);
        self.promised_ports.retain(|_, (by, _)| &**by != owner);
    }

    fn expire(&mut self, now: Instant) {
        let full = self.promised_addresses.len() > PROMISES_MAX || self.promised_ports.len() > PROMISES_MAX;
        let age_max = if full { PROMISE_AGE_MAX / 4 } else { PROMISE_AGE_MAX };
        let fresh = |since: &Instant| now.duration_since(*since) < age_max;
        self.promised_addresses.retain(|_, (_, since)| fresh(since));
        self.promised_ports.retain(|_, (_, since)| fresh(since));
    }
}

/// What others than one Service hold: Services, and users with IPAddress objects of their own.
struct Others<'a>(&'a Held, &'a str, &'a Objects);

impl Others<'_> {
    /// Objects of the allocator follow the Services, so that they hold nothing by themselves.
    fn is_reserved(&self, ip: IpAddr) -> bool {
        if self.0.addresses.get(&ip).is_some_and(|by| &**by == self.1) {
            return false;
        }
        let object = self.2.get(ip.to_string().as_str()).and_then(|object| object.value().ok());
        object.is_some_and(|object| object["metadata"]["labels"][MANAGED_BY] != ALLOCATOR)
    }
}

impl Taken for Others<'_> {
    fn address(&self, ip: IpAddr) -> bool {
        let by = [self.0.addresses.get(&ip), self.0.promised_addresses.get(&ip).map(|(by, _)| by)];
        by.into_iter().flatten().any(|by| &**by != self.1) || self.is_reserved(ip)
    }

    fn port(&self, port: u16) -> bool {
        let by = [self.0.ports.get(&port), self.0.promised_ports.get(&port).map(|(by, _)| by)];
        by.into_iter().flatten().any(|by| &**by != self.1)
    }
}

fn is_ready(cidr: &Value) -> bool {
    let conditions = cidr["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().any(|known| known["type"] == "Ready" && known["status"] == "True");
    ready && cidr["metadata"]["deletionTimestamp"].is_null()
}

fn is_service(request: &AdmissionRequest<'_>) -> bool {
    let kind = &request.served.kind;
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    writes && request.subresource.is_empty() && kind.group.is_empty() && kind.plural == "services"
}

impl ServiceAllocation {
    pub fn new(ranges: Ranges) -> Self {
        Self { ranges, held: Mutex::default() }
    }

    /// The cluster's own ranges, and those of the ServiceCIDRs that are ready.
    fn ranges(&self, cidrs: &Objects) -> Ranges {
        let mut ranges = self.ranges.clone();
        for cidr in cidrs.values().filter_map(|object| object.value().ok()).filter(is_ready) {
            let texts = cidr["spec"]["cidrs"].as_array().into_iter().flatten().filter_map(Value::as_str);
            for range in texts.filter_map(|text| text.parse().ok()) {
                if !ranges.addresses.contains(&range) {
                    ranges.addresses.push(range);
                }
            }
        }
        ranges
    }
}

#[async_trait]
impl Admission for ServiceAllocation {
    fn name(&self) -> &'static str {
        "ServiceAllocation"
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> ApiResult<()> {
        if !is_service(request) {
            return Ok(());
        }
        // Everything committed before this request is seen, so that two Services never hold the same.
        request.engine.cache.wait_current().await?;
        let services = request.engine.snapshot("", "services").objects;
        let ranges = self.ranges(&request.engine.snapshot("networking.k8s.io", "servicecidrs").objects);
        let objects = request.engine.snapshot("networking.k8s.io", "ipaddresses").objects;
        let owner: Arc<str> = format!("{}/{}", request.namespace, request.name).into();
        let now = Instant::now();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.expire(now);
        held.follow(services);
        let draw = |bound: u64| rand::rng().random_range(0..bound.max(1));
        service::settle(object, request.old, &ranges, &Others(&held, &owner, &objects), draw)
            .map_err(|errors| Status::invalid("", "Service", request.name, &errors))?;
        if !request.dry_run {
            held.promise(&owner, object, now);
        }
        Ok(())
    }

    async fn committed(&self, request: &AdmissionRequest<'_>, _object: &Value) {
        if is_service(request) {
            let owner = format!("{}/{}", request.namespace, request.name);
            self.held.lock().unwrap_or_else(PoisonError::into_inner).forget(&owner);
        }
    }
}

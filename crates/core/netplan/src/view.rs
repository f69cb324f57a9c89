//! The small views of Service and EndpointSlice that the planners keep instead of whole objects.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Namespace and name of a Service or an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Transport protocol of a service port; the order is that of the wire names in nftables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Sctp,
    Tcp,
    Udp,
}

impl Protocol {
    /// Reads Kubernetes' name; an absent protocol means TCP, an unknown one is `None`.
    pub fn parse(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// The lower-case name used by nftables and by DNS SRV labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sctp => "sctp",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One port of a Service. `name` is empty for the only, unnamed port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    /// Zero when the Service has none.
    pub node_port: u16,
}

/// What kind of frontend a Service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frontend {
    /// No cluster IP was given yet.
    Pending,
    /// `clusterIP: None`: names only, no proxying.
    Headless,
    /// One or two cluster IPs (one per family).
    Cluster(Vec<IpAddr>),
    /// A CNAME to this host name.
    External(String),
}

/// The proxy's and the DNS server's view of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    pub frontend: Frontend,
    pub ports: Vec<ServicePort>,
    /// `spec.externalIPs`.
    pub external_ips: BTreeSet<Ipv4Addr>,
    /// Ingress addresses of the load balancer whose `ipMode` is VIP.
    pub load_balancer_ips: BTreeSet<Ipv4Addr>,
    /// `spec.loadBalancerSourceRanges`: empty admits everyone.
    pub source_ranges: BTreeSet<String>,
    /// Seconds that a client sticks to its endpoint; `None` without affinity.
    pub affinity_seconds: Option<u32>,
    pub internal_local: bool,
    pub external_local: bool,
    /// `spec.healthCheckNodePort`, where a load balancer asks on it which nodes have endpoints; else zero.
    pub health_check_port: u16,
    /// `service.kubernetes.io/service-proxy-name` is set: someone else proxies this Service.
    pub other_proxy: bool,
}

/// Affinity timeout when a Service does not state one, in seconds (three hours).
const AFFINITY_SECONDS_DEFAULT: i32 = 10_800;
const OTHER_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

fn port_number(value: i32) -> Option<u16> {
    u16::try_from(value).ok().filter(|port| *port != 0)
}

/// Reads an IPv4 network such as `10.0.0.0/8`; host bits are cleared so that it can be an interval element.
pub fn parse_cidr(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, length) = text.trim().split_once('/')?;
    let (address, length) = (address.parse::<Ipv4Addr>().ok()?, length.parse::<u8>().ok().filter(|l| *l <= 32)?);
    let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
    Some((Ipv4Addr::from(u32::from(address) & mask), length))
}

impl From<&Service> for ServiceView {
    fn from(service: &Service) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let ips: Vec<IpAddr> =
            spec.cluster_ips.iter().flatten().chain(spec.cluster_ip.iter()).fold(vec![], |mut all, ip| {
                all.extend(ip.parse::<IpAddr>().ok().filter(|ip| !all.contains(ip)));
                all
            });
        let frontend = match (spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
            (Some("ExternalName"), _) => Frontend::External(spec.external_name.clone().unwrap_or_default()),
            (_, Some("None")) => Frontend::Headless,
            _ if ips.is_empty() => Frontend::Pending,
            _ => Frontend::Cluster(ips),
        };
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            Some(ServicePort {
                name: port.name.clone().unwrap_or_default(),
                protocol: Protocol::parse(port.protocol.as_deref())?,
                port: port_number(port.port)?,
                node_port: port.node_port.and_then(port_number).unwrap_or(0),
            })
        });
        let ingress =
            service.status.iter().filter_map(|s| s.load_balancer.as_ref()).flat_map(|l| l.ingress.iter().flatten());
        let affinity_seconds = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
            config.and_then(|c| c.timeout_seconds).unwrap_or(AFFINITY_SECONDS_DEFAULT).max(1).unsigned_abs()
        });
        Self {
            frontend,
            ports: ports.collect(),
            external_ips: spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect(),
            load_balancer_ips: ingress
                .filter(|i| i.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"))
                .filter_map(|i| i.ip.as_deref()?.parse().ok())
                .collect(),
            source_ranges: spec
                .load_balancer_source_ranges
                .iter()
                .flatten()
                .filter_map(|range| parse_cidr(range).map(|(ip, length)| format!("{ip}/{length}")))
                .collect(),
            affinity_seconds,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            health_check_port: spec.health_check_node_port.and_then(port_number).unwrap_or(0),
            other_proxy: service.metadata.labels.iter().flatten().any(|(name, _)| name == OTHER_PROXY_LABEL),
        }
    }
}

/// One endpoint of a slice; it may carry several addresses of the slice's family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointView {
    pub addresses: Vec<String>,
    pub hostname: Option<String>,
    pub node: Option<String>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// Zones and nodes that the endpoint controller recommends it for.
    pub zones: Vec<String>,
    pub nodes: Vec<String>,
}

/// The view of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceView {
    /// The Service that it belongs to.
    pub service: Key,
    pub ipv6: bool,
    /// Labelled as slice of a headless Service or of another proxy: DNS reads it, the proxy does not.
    pub not_proxied: bool,
    /// Port name, protocol and number.
    pub ports: Vec<(String, Protocol, u16)>,
    pub endpoints: Vec<EndpointView>,
}

impl SliceView {
    /// `None` for a slice without a Service or one of host names, which neither planner serves.
    pub fn from_object(slice: &EndpointSlice) -> Option<Self> {
        let labels = slice.metadata.labels.as_ref()?;
        let service = Key::new(slice.metadata.namespace.clone()?, labels.get(SERVICE_NAME_LABEL)?.clone());
        let ipv6 = match slice.address_type.as_str() {
            "IPv4" => false,
            "IPv6" => true,
            _ => return None,
        };
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let number = port.port.and_then(port_number)?;
            Some((port.name.clone().unwrap_or_default(), Protocol::parse(port.protocol.as_deref())?, number))
        });
        let endpoints = slice.endpoints.iter().flatten().map(|endpoint| {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            // The API's rule: unknown ready means ready, unknown serving means the same as ready.
            let ready = conditions.ready.unwrap_or(true);
            let hints = endpoint.hints.clone().unwrap_or_default();
            EndpointView {
                addresses: endpoint.addresses.clone(),
                hostname: endpoint.hostname.clone().filter(|name| !name.is_empty()),
                node: endpoint.node_name.clone(),
                ready,
                serving: conditions.serving.unwrap_or(ready),
                terminating: conditions.terminating.unwrap_or(false),
                zones: hints.for_zones.unwrap_or_default().into_iter().map(|zone| zone.name).collect(),
                nodes: hints.for_nodes.unwrap_or_default().into_iter().map(|node| node.name).collect(),
            }
        });
        Some(Self {
            service,
            ipv6,
            not_proxied: labels.contains_key(HEADLESS_LABEL) || labels.contains_key(OTHER_PROXY_LABEL),
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        })
    }
}

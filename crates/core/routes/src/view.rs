//! The small views of built-in kinds that routing keeps instead of whole objects.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::Key;

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";
/// How classes were named before `spec.ingressClassName`; still honoured, as the API documentation asks.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Prefix of the annotations that adjust one Ingress.
pub const OPTION_PREFIX: &str = "ingress.tug.local/";

pub(crate) fn key(meta: &ObjectMeta) -> Key {
    Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

/// The port of a Service that a rule names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortRef {
    Name(String),
    Number(u16),
}

/// What a rule of an Ingress sends requests to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendView {
    Service {
        name: String,
        port: PortRef,
    },
    /// `backend.resource`: kind and name of something that is no Service.
    Resource(String),
}

impl BackendView {
    fn read(backend: &IngressBackend) -> Option<Self> {
        if let Some(resource) = &backend.resource {
            return Some(Self::Resource(format!("{} {}", resource.kind, resource.name)));
        }
        let service = backend.service.as_ref()?;
        let port = service.port.as_ref()?;
        let port = match (&port.name, port.number.and_then(number)) {
            (Some(name), _) if !name.is_empty() => PortRef::Name(name.clone()),
            (_, Some(number)) => PortRef::Number(number),
            _ => return None,
        };
        Some(Self::Service { name: service.name.clone(), port })
    }
}

/// One path of an Ingress's rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathView {
    pub exact: bool,
    pub path: String,
    pub backend: BackendView,
}

/// The view of an Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressView {
    pub key: Key,
    /// Seconds since the epoch; the older object wins where two claim the same.
    pub created: i64,
    pub class: Option<String>,
    pub default_backend: Option<BackendView>,
    /// Host (empty: every host) and its paths.
    pub rules: Vec<(String, Vec<PathView>)>,
    /// Hosts and the name of their Secret.
    pub tls: Vec<(Vec<String>, Option<String>)>,
    /// Annotations that begin with [`OPTION_PREFIX`], without it.
    pub options: Vec<(String, String)>,
}

impl From<&Ingress> for IngressView {
    fn from(ingress: &Ingress) -> Self {
        let spec = ingress.spec.clone().unwrap_or_default();
        let annotations = || ingress.metadata.annotations.iter().flatten();
        let rules = spec.rules.iter().flatten().map(|rule| {
            let paths = rule.http.iter().flat_map(|http| &http.paths).filter_map(|path| {
                Some(PathView {
                    exact: path.path_type == "Exact",
                    path: path.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned()),
                    backend: BackendView::read(&path.backend)?,
                })
            });
            (rule.host.clone().unwrap_or_default(), paths.collect())
        });
        let tls = spec.tls.iter().flatten();
        Self {
            key: key(&ingress.metadata),
            created: ingress.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            class: spec
                .ingress_class_name
                .clone()
                .or_else(|| annotations().find(|(name, _)| *name == CLASS_ANNOTATION).map(|(_, class)| class.clone())),
            default_backend: spec.default_backend.as_ref().and_then(BackendView::read),
            rules: rules.collect(),
            tls: tls.map(|tls| (tls.hosts.clone().unwrap_or_default(), tls.secret_name.clone())).collect(),
            options: annotations()
                .filter_map(|(name, value)| Some((name.strip_prefix(OPTION_PREFIX)?.to_owned(), value.clone())))
                .collect(),
        }
    }
}

/// The view of an IngressClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassView {
    pub name: String,
    pub controller: String,
    pub is_default: bool,
}

impl From<&IngressClass> for ClassView {
    fn from(class: &IngressClass) -> Self {
        let controller = class.spec.as_ref().and_then(|spec| spec.controller.clone());
        Self {
            name: class.metadata.name.clone().unwrap_or_default(),
            controller: controller.unwrap_or_default(),
            is_default: class
                .metadata
                .annotations
                .iter()
                .flatten()
                .any(|(name, value)| name == DEFAULT_CLASS_ANNOTATION && value == "true"),
        }
    }
}

/// One TCP port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: String,
    pub number: u16,
    pub protocol: Protocol,
}

/// What is spoken with a backend, from `appProtocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2 without TLS, from the first byte: `kubernetes.io/h2c`, and `grpc` as others write it.
    Http2,
}

impl Protocol {
    fn of(app_protocol: Option<&String>) -> Self {
        match app_protocol.map(String::as_str) {
            Some("kubernetes.io/h2c" | "h2c" | "grpc") => Self::Http2,
            _ => Self::Http1,
        }
    }
}

/// The view of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    pub key: Key,
    pub ports: Vec<ServicePort>,
    /// `type: ExternalName`: a name outside, which the ingress does not follow.
    pub is_external_name: bool,
}

impl From<&Service> for ServiceView {
    fn from(service: &Service) -> Self {
        let spec = service.spec.as_ref();
        let ports = spec.into_iter().flat_map(|spec| spec.ports.iter().flatten());
        let tcp = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
        Self {
            key: key(&service.metadata),
            ports: tcp
                .filter_map(|port| {
                    Some(ServicePort {
                        name: port.name.clone().unwrap_or_default(),
                        number: number(port.port)?,
                        protocol: Protocol::of(port.app_protocol.as_ref()),
                    })
                })
                .collect(),
            is_external_name: spec.is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName")),
        }
    }
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointView {
    pub address: IpAddr,
    pub ready: bool,
    /// Terminating, but still answering: used when nothing else is left.
    pub lingering: bool,
    /// Zones that the endpoint controller recommends it for.
    pub zones: Vec<String>,
}

/// The view of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceView {
    pub key: Key,
    /// Name of the Service in the same namespace; empty for a slice of nobody.
    pub service: String,
    /// Name and number of the TCP ports.
    pub ports: Vec<(String, u16)>,
    pub endpoints: Vec<EndpointView>,
}

impl From<&EndpointSlice> for SliceView {
    fn from(slice: &EndpointSlice) -> Self {
        let labels = slice.metadata.labels.as_ref();
        let ports = slice.ports.iter().flatten();
        let tcp = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
        let endpoints = slice.endpoints.iter().flatten().filter_map(|endpoint| {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            // The API's rule: unknown ready means ready, unknown serving means the same as ready.
            let ready = conditions.ready.unwrap_or(true);
            let hints = endpoint.hints.clone().unwrap_or_default();
            Some(EndpointView {
                // Only the first address counts: the API calls the others fungible.
                address: endpoint.addresses.first()?.parse().ok()?,
                ready,
                lingering: conditions.serving.unwrap_or(ready) && conditions.terminating.unwrap_or(false),
                zones: hints.for_zones.unwrap_or_default().into_iter().map(|zone| zone.name).collect(),
            })
        });
        Self {
            key: key(&slice.metadata),
            service: labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL)).cloned().unwrap_or_default(),
            ports: tcp
                .filter_map(|port| Some((port.name.clone().unwrap_or_default(), port.port.and_then(number)?)))
                .collect(),
            endpoints: endpoints.collect(),
        }
    }
}

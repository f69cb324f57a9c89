//! The environment of a container: service links, `envFrom`, `env` and `$(NAME)` references.

use crate::fields::{self, Addresses};
use crate::node::Node;
use crate::objects::{Data, DataKind};
use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, Service};
use std::collections::BTreeMap;

/// A variable list in order of definition, later values replacing earlier ones.
#[derive(Default)]
pub struct Environment {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Environment {
    fn set(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_string(), value).is_none() {
            self.order.push(name.to_string());
        }
    }

    /// Value of a variable.
    pub fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }

    /// Name and value in order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.order.iter().map(|n| (n.as_str(), self.values.get(n).map_or("", String::as_str)))
    }
}

/// A name that may stand in an environment: printable ASCII without `=`.
fn valid_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

/// Builds the environment of `container`.
///
/// # Errors
/// The text for `CreateContainerConfigError`, when a reference that is not optional cannot be resolved.
pub async fn environment(
    node: &Node,
    pod: &Pod,
    container: &Container,
    addresses: &Addresses,
) -> Result<Environment, String> {
    let mut env = Environment::default();
    for (name, value) in node.service_variables(pod) {
        env.set(&name, value);
    }
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or("");
        let (kind, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(r), _) => (DataKind::ConfigMap, &r.name, r.optional),
            (_, Some(r)) => (DataKind::Secret, &r.name, r.optional),
            _ => continue,
        };
        let Some(data) = lookup(node, pod, kind, name, optional.unwrap_or(false)).await? else { continue };
        for (key, value) in data {
            let name = format!("{prefix}{key}");
            if valid_name(&name) {
                env.set(&name, String::from_utf8_lossy(&value).into_owned());
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => match from_source(node, pod, container, source, addresses).await? {
                Some(value) => value,
                None => continue,
            },
            (Some(text), None) => podsync::expand(text, |name| env.get(name)),
            (None, None) => String::new(),
        };
        env.set(&variable.name, value);
    }
    Ok(env)
}

async fn lookup(node: &Node, pod: &Pod, kind: DataKind, name: &str, optional: bool) -> Result<Option<Data>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    match node.objects.get(kind, namespace, name, uid).await? {
        Some(data) => Ok(Some(data)),
        None if optional => Ok(None),
        None => Err(format!("{} \"{name}\" not found", kind.as_str())),
    }
}

async fn from_source(
    node: &Node,
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    addresses: &Addresses,
) -> Result<Option<String>, String> {
    if let Some(selector) = &source.field_ref {
        return fields::field(pod, selector, addresses).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return fields::resource(pod, Some(container), selector, &node.machine).map(Some);
    }
    let (kind, name, key, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(r), _) => (DataKind::ConfigMap, &r.name, &r.key, r.optional),
        (_, Some(r)) => (DataKind::Secret, &r.name, &r.key, r.optional),
        _ => return Err("unsupported environment variable source".into()),
    };
    let optional = optional.unwrap_or(false);
    let Some(data) = lookup(node, pod, kind, name, optional).await? else { return Ok(None) };
    match data.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional => Ok(None),
        None => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let word = if kind == DataKind::Secret { "Secret" } else { "ConfigMap" };
            Err(format!("couldn't find key {key} in {word} {namespace}/{name}"))
        }
    }
}

/// Docker-style link variables of one service.
pub fn service_link(service: &Service) -> Vec<(String, String)> {
    let spec = service.spec.as_ref();
    let address = spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or("");
    let ports = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let Some(first) = ports.first() else { return Vec::new() };
    if address.is_empty() || address == "None" {
        return Vec::new();
    }
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let base = upper(service.metadata.name.as_deref().unwrap_or_default());
    let joined =
        |port: i32| if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
    let protocol = |p: &k8s_openapi::api::core::v1::ServicePort| p.protocol.clone().unwrap_or_else(|| "TCP".into());
    let mut out = vec![
        (format!("{base}_SERVICE_HOST"), address.to_string()),
        (format!("{base}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.push((format!("{base}_SERVICE_PORT_{}", upper(name)), port.port.to_string()));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let (upper_protocol, url) =
            (protocol(port), format!("{}://{}", protocol(port).to_lowercase(), joined(port.port)));
        if index == 0 {
            out.push((format!("{base}_PORT"), url.clone()));
        }
        let prefix = format!("{base}_PORT_{}_{upper_protocol}", port.port);
        out.push((prefix.clone(), url));
        out.push((format!("{prefix}_PROTO"), upper_protocol.to_lowercase()));
        out.push((format!("{prefix}_PORT"), port.port.to_string()));
        out.push((format!("{prefix}_ADDR"), address.to_string()));
    }
    out
}

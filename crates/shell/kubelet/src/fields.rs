//! Downward API: values of `fieldRef` and `resourceFieldRef`.

use crate::machine::Machine;
use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use meta::quantity::Quantity;
use std::collections::BTreeMap;

/// Addresses that a pod's fields may name.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// The pod's, first is primary.
    pub pod: Vec<String>,
    /// The node's, first is primary.
    pub host: Vec<String>,
}

fn quote(text: &str) -> String {
    // Kubernetes writes label values as Go's %q does; JSON strings agree on everything a label may hold
    serde_json::Value::String(text.to_string()).to_string()
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(k, v)| format!("{k}={}", quote(v))).collect::<Vec<_>>().join("\n")
}

/// The text of a pod field.
///
/// # Errors
/// When the path is not one that the downward API serves.
pub fn field(pod: &Pod, selector: &ObjectFieldSelector, addresses: &Addresses) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    let path = selector.field_path.as_str();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(format!("fieldPath \"{path}\" does not support subscript")),
        };
        return Ok(map.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" => text(addresses.host.first()),
        "status.hostIPs" => addresses.host.join(","),
        "status.podIP" => text(addresses.pod.first()),
        "status.podIPs" => addresses.pod.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// The text of a container's request or limit, divided by the divisor and rounded up.
///
/// # Errors
/// When the container or the resource does not exist.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    machine: &Machine,
) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let container = match named {
        Some(name) => spec.and_then(|s| podsync::all_containers(s).map(|(_, c)| c).find(|c| c.name == name)),
        None => own,
    };
    let container = container.ok_or_else(|| format!("container {} not found", named.unwrap_or("")))?;
    let (list, name) = selector.resource.split_once('.').ok_or("invalid resource")?;
    let resources = container.resources.as_ref();
    let get = |limits: bool| {
        let list = resources.and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
        list.and_then(|l| l.get(name)).and_then(|q| q.0.parse::<Quantity>().ok()).map(|q| i128::from(q.milli_value()))
    };
    let of_pod = spec.and_then(|spec| spec.resources.as_ref()?.limits.as_ref()?.get(name));
    let of_pod = of_pod.and_then(|q| q.0.parse::<Quantity>().ok()).map(|q| i128::from(q.milli_value()));
    let of_pod = of_pod.filter(|milli| *milli > 0 && matches!(name, "cpu" | "memory"));
    let milli: i128 = match list {
        // what limits neither the container nor the pod is the node
        "limits" => get(true).filter(|milli| *milli > 0).or(of_pod).unwrap_or_else(|| machine.allocatable_milli(name)),
        "requests" => get(false).or_else(|| get(true)).unwrap_or(0),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let divisor = selector.divisor.as_ref().and_then(|divisor| divisor.0.parse::<Quantity>().ok());
    let divisor = divisor.map(|divisor| i128::from(divisor.milli_value())).filter(|milli| *milli > 0).unwrap_or(1000);
    Ok(((milli + divisor - 1) / divisor).to_string())
}

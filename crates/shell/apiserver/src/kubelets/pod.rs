//! log, exec, attach and port-forward of a pod.

use http::HeaderMap;
use meta::{ApiResult, Status};
use serde_json::Value;

use super::{Address, KubeletPath, kubelet_address};
use crate::engine::Engine;
use crate::info::{Query, RequestInfo};

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

pub(super) fn log(engine: &Engine, query: &Query, pod: &Value) -> ApiResult<KubeletPath> {
    let container = container(pod, query.get("container"))?;
    Ok(KubeletPath { address: address(engine, pod)?, path: format!("/containerLogs/{}/{container}", place(pod)) })
}

/// exec and attach.
pub(super) fn remote_command(
    engine: &Engine,
    info: &RequestInfo,
    query: &Query,
    pod: &Value,
    headers: &HeaderMap,
) -> ApiResult<KubeletPath> {
    need_upgrade(headers)?;
    let container = container(pod, query.get("container"))?;
    if let Some(phase @ ("Succeeded" | "Failed")) = pod["status"]["phase"].as_str() {
        let message = format!("cannot exec into a container in a completed pod; current phase is {phase}");
        return Err(Status::bad_request(message));
    }
    Ok(KubeletPath {
        address: address(engine, pod)?,
        path: format!("/{}/{}/{container}", info.subresource, place(pod)),
    })
}

pub(super) fn port_forward(engine: &Engine, pod: &Value, headers: &HeaderMap) -> ApiResult<KubeletPath> {
    need_upgrade(headers)?;
    Ok(KubeletPath { address: address(engine, pod)?, path: format!("/portForward/{}", place(pod)) })
}

fn need_upgrade(headers: &HeaderMap) -> ApiResult<()> {
    if streams::splice::wants_upgrade(headers) { Ok(()) } else { Err(Status::bad_request("Upgrade request required")) }
}

/// `NAMESPACE/NAME`.
fn place(pod: &Value) -> String {
    let text = |name: &str| pod["metadata"][name].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

/// The kubelet of the pod's node.
fn address(engine: &Engine, pod: &Value) -> ApiResult<Address> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let node = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty());
    let node = node.ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))?;
    kubelet_address(engine, node)
}

/// The container that is meant: the one asked for, or the only one there is.
fn container(pod: &Value, asked: &str) -> ApiResult<String> {
    let names = |list: &str| -> Vec<&str> {
        pod["spec"][list].as_array().into_iter().flatten().filter_map(|container| container["name"].as_str()).collect()
    };
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    if !asked.is_empty() {
        let known = CONTAINER_LISTS.iter().any(|list| names(list).contains(&asked));
        let unknown = || Status::bad_request(format!("container {asked} is not valid for pod {pod_name}"));
        return if known { Ok(asked.to_owned()) } else { Err(unknown()) };
    }
    let containers = names("containers");
    if let [only] = containers.as_slice() {
        return Ok((*only).to_owned());
    }
    let mut message =
        format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", containers.join(" "));
    for (list, words) in [("initContainers", "init containers"), ("ephemeralContainers", "ephemeral containers")] {
        let others = names(list);
        if !others.is_empty() {
            message.push_str(&format!(" or one of the {words}: [{}]", others.join(" ")));
        }
    }
    Err(Status::bad_request(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_meant_is_found_or_asked_for() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&one, "").unwrap(), "a");
        assert_eq!(container(&two, "i").unwrap(), "i");
        assert_eq!(container(&one, "x").unwrap_err().message, "container x is not valid for pod p");
        let choose =
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]";
        assert_eq!(container(&two, "").unwrap_err().message, choose);
    }
}

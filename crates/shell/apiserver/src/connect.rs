//! Where requests that become byte streams are handed over: log, exec, attach, port-forward and proxy.

use async_trait::async_trait;
use http::{Request, Response};
use meta::ApiResult;
use serde_json::{Value, json};

use crate::body::Body;
use crate::engine::Engine;
use crate::info::{Query, RequestInfo};

/// Answers a streaming subresource of an object that exists. Authorization is done; the request still holds
/// hyper's upgrade in its extensions.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    async fn connect(
        &self,
        engine: &Engine,
        info: &RequestInfo,
        query: &Query,
        object: &Value,
        request: Request<Body>,
    ) -> ApiResult<Response<Body>>;
}

/// Subresources that a connector answers.
pub const CONNECTED: [&str; 5] = ["log", "exec", "attach", "portforward", "proxy"];

/// The options of a connection as an object: `PodExecOptions` and its kin, which only admission sees.
pub fn options(info: &RequestInfo, query: &Query) -> Value {
    let kind = match (info.resource.as_str(), info.subresource.as_str()) {
        ("pods", "exec") => "PodExecOptions",
        ("pods", "attach") => "PodAttachOptions",
        ("pods", "portforward") => "PodPortForwardOptions",
        ("pods", _) => "PodProxyOptions",
        ("services", _) => "ServiceProxyOptions",
        _ => "NodeProxyOptions",
    };
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    let mut set = |key: &str, value: Value| options[key] = value;
    match info.subresource.as_str() {
        "exec" | "attach" => {
            for flag in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|flag| query.flag(flag)) {
                set(flag, true.into());
            }
            if query.has("container") {
                set("container", query.get("container").into());
            }
            let command: Vec<&str> = query.all("command").collect();
            if info.subresource == "exec" {
                set("command", command.into());
            }
        }
        "portforward" => {
            let ports = query.all("ports").flat_map(|list| list.split(',')).filter_map(|port| port.parse().ok());
            let ports: Vec<u16> = ports.collect();
            if !ports.is_empty() {
                set("ports", ports.into());
            }
        }
        _ => set("path", info.rest.as_str().into()),
    }
    options
}

//! Where requests that become byte streams are handed over: log, exec, attach, port-forward and proxy.

use async_trait::async_trait;
use http::{Request, Response};
use meta::ApiResult;
use serde_json::Value;

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
